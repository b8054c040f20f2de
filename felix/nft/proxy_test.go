package nft

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// What kube-proxy writes for a service with one pod, port 9999 of UDP, in its
// modes. The mark is its default.
var proxies = map[string]func(*nstest.NS){
	"nftables": func(ns *nstest.NS) {
		ns.Run("nft", `add table ip kube-proxy;
			add chain ip kube-proxy pre { type nat hook prerouting priority -100; };
			add chain ip kube-proxy post { type nat hook postrouting priority 100; };
			add chain ip kube-proxy filter { type filter hook forward priority 0; };
			add rule ip kube-proxy filter ct state invalid drop;
			add rule ip kube-proxy pre ip daddr 10.96.0.1 udp dport 9999 ip saddr != 10.65.0.0/16 meta mark set mark or 0x4000;
			add rule ip kube-proxy pre ip daddr 10.96.0.1 udp dport 9999 ip saddr 10.65.1.1 meta mark set mark or 0x4000;
			add rule ip kube-proxy pre ip daddr 10.96.0.1 udp dport 9999 dnat to 10.65.1.1;
			add rule ip kube-proxy post mark & 0x4000 == 0 return;
			add rule ip kube-proxy post meta mark set mark xor 0x4000;
			add rule ip kube-proxy post masquerade fully-random`)
	},
	"iptables": func(ns *nstest.NS) { iptables(ns, "iptables-nft") },
	"legacy":   func(ns *nstest.NS) { iptables(ns, "iptables-legacy") },
}

func iptables(ns *nstest.NS, program string) {
	for _, line := range strings.Split(`-N KUBE-MARK
-N KUBE-POSTROUTING
-N KUBE-SERVICES
-A PREROUTING -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK -j MARK --or-mark 0x4000
-A KUBE-SERVICES -d 10.96.0.1/32 -p udp --dport 9999 ! -s 10.65.0.0/16 -j KUBE-MARK
-A KUBE-SERVICES -d 10.96.0.1/32 -p udp --dport 9999 -s 10.65.1.1/32 -j KUBE-MARK
-A KUBE-SERVICES -d 10.96.0.1/32 -p udp --dport 9999 -j DNAT --to-destination 10.65.1.1:9999
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully`, "\n") {
		ns.Run(program, append([]string{"-w", "-t", "nat"}, strings.Fields(line)...)...)
	}
	ns.Run(program, "-w", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "INVALID", "-j", "DROP")
}

// TestBesideKubeProxy has services served and not served, and pods masqueraded,
// with the rules of kube-proxy beside ours, whoever came first.
func TestBesideKubeProxy(t *testing.T) {
	for mode, write := range proxies {
		for _, first := range []bool{true, false} {
			name := mode + " after ours"
			if first {
				name = mode + " before ours"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				// A router that sends what nobody serves back to its sender.
				w.node.IP("route add 10.96.0.0/12 via 192.168.7.2")
				w.outside.IP("addr add 10.96.0.2/32 dev lo")
				w.outside.IP("route add 10.96.0.1/32 via 192.168.7.1")
				rules := w.rules()
				rules.Services.Ranges = prefixes("10.96.0.0/12")
				if first {
					write(w.node)
				}
				apply(t, open(t, w.node), rules)
				if !first {
					write(w.node)
				}
				theirs := w.node.Run("nft", "list", "tables")
				const pod, port = "10.65.1.1", 9999
				if ok, by := sends(t, w.outside, w.known, "192.168.7.2", "10.96.0.1", pod, port); !ok || by != "10.65.1.254" {
					t.Errorf("the service from outside: %t, by %q", ok, by)
				}
				if ok, by := sends(t, w.known, w.known, "10.65.1.66", "10.96.0.1", pod, port); ok {
					t.Errorf("a pod that is not who it says reaches a service, by %q", by)
				}
				if ok, by := sends(t, w.known, w.outside, pod, "192.168.7.2", "192.168.7.2", port); !ok || by != "192.168.7.1" {
					t.Errorf("a pod outside: %t, by %q, want it masqueraded", ok, by)
				}
				if ok, _ := sends(t, w.known, w.outside, pod, "10.96.0.2", "10.96.0.2", port); ok {
					t.Error("a packet for a service that nobody serves is sent on")
				}
				if got := w.node.Run("nft", "list", "tables"); got != theirs || !strings.Contains(got, "inet muslin") {
					t.Errorf("tables: %s, were %s", got, theirs)
				}
			})
		}
	}
}
