package acceptance

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/pkg/model"
)

// attacker is a pod that may write whole frames, beside a victim on one node.
type attacker struct {
	*node
	router *nstest.NS
	pod    *nstest.NS
	link   string // the node's end
	mac    net.HardwareAddr
	own    netip.Addr // IPv4
	local  netip.Addr // IPv6, of its link
	victim netip.Addr // IPv4, of the node's other pod
}

// The gateways of the node, and what the attacker would like to have.
var (
	gateway4, gateway6 = netip.MustParseAddr("10.1.0.254"), netip.MustParseAddr("fd01::254")
	outside4, outside6 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
)

// newAttacker makes the node. Without v6 it has no IPv6 pool, so that it forwards
// IPv4 alone.
func newAttacker(t *testing.T, v6 bool) *attacker {
	t.Helper()
	a := &attacker{node: newNode(t, 1, "a", 1), router: nstest.New(t), pod: nstest.New(t), own: netip.MustParseAddr("10.65.1.11")}
	a.router.Run("sysctl", "-qw", "net.ipv6.conf.default.addr_gen_mode=1") // nobody else makes himself known
	a.ns.Veth("eth0", a.router, "to-a", []string{a.IPv4.String(), a.IPv6.String()}, []string{"10.1.0.254/24", "fd01::254/64"})
	a.ns.IP("route add default via " + gateway4.String())
	a.ns.IP("-6 route add default via " + gateway6.String())
	spec := pod.Spec{
		ContainerID: strings.Repeat("a", 64), Interface: "eth0", NetNS: a.pod.Path, Namespace: "tenant", Pod: "bad",
		HostInterface: pod.HostInterface("tenant", "bad"), Addresses: []netip.Addr{a.own}, MTU: 1400,
	}
	s := model.Snapshot{Synced: true, Nodes: []model.Node{a.Node}, Pools: []model.Pool{
		{Name: "v4", CIDR: netip.MustParsePrefix("10.65.0.0/16"), BlockSize: 26, NATOutgoing: true},
	}}
	if v6 {
		spec.Addresses = append(spec.Addresses, netip.MustParseAddr("fd65::1:11"))
		s.Pools = append(s.Pools, model.Pool{Name: "v6", CIDR: netip.MustParsePrefix("fd65::/48"), BlockSize: 122})
	} else {
		a.ns.Run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=0")
	}
	ep, err := a.plugger.Attach(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	a.link, a.others, a.victim = ep.HostInterface, []model.Endpoint{ep}, a.endpoint.Addresses[0]
	if a.mac, err = net.ParseMAC(ep.MAC); err != nil {
		t.Fatal(err)
	}
	a.local = nl.LinkLocal(a.mac)
	a.tell(s, nil)
	a.run(t)
	eventually(t, "the pods are policed and reached", func() bool {
		return a.group(netip.PrefixFrom(a.own, 32)) == a.link && strings.Contains(a.rules(), a.own.String()) &&
			!strings.Contains(a.ns.IP("-6 addr"), "tentative")
	})
	return a
}

func (a *attacker) rules() string {
	text, _ := a.ns.Try("nft", "list", "table", "inet", felix.TableName) // not there yet
	return text
}

var counter = regexp.MustCompile(`counter packets (\d+)`)

// dropped is how many packets met the rules that have some words in them.
func (a *attacker) dropped(t *testing.T, words string) (n int) {
	t.Helper()
	for line := range strings.Lines(a.rules()) {
		if m := counter.FindStringSubmatch(line); m != nil && strings.Contains(line, words) {
			packets, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			n += packets
		}
	}
	return n
}

// state is what no pod may change of the node: routes, addresses and whose
// hardware address is whose. A link-local address that is made of its hardware
// address comes and goes with who speaks.
func (a *attacker) state() []string {
	var out []string
	for _, ask := range []string{"-4 -o route show table all", "-6 -o route show table all", "-o addr", "-o neigh", "-6 -o neigh"} {
		for line := range strings.Lines(a.ns.IP(ask)) {
			if _, rest, ok := strings.Cut(line, " lladdr "); ok {
				line = line[:len(line)-len(rest)] + strings.Fields(rest)[0] // less the states, which go round
			}
			if to := strings.Fields(line); len(to) > 4 && to[3] == "lladdr" && itself(to[0], to[4]) {
				continue
			}
			out = append(out, strings.TrimSpace(line))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// itself says whether an address is the link-local one of a hardware address.
func itself(addr, mac string) bool {
	m, err := net.ParseMAC(mac)
	return err == nil && len(m) == 6 && nl.LinkLocal(m).String() == addr
}

// attack is what a pod sends, and the rule that it meets.
type attack struct {
	name   string
	frames func(a *attacker) [][]byte
	rule   string // words of it
}

var (
	gatewayMAC = pod.HostMAC
	everyNode  = netip.MustParseAddr("ff02::1")
	everyMAC   = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
	broadcast  = net.HardwareAddr{255, 255, 255, 255, 255, 255}
)

// to is a frame of the attacker's.
func (a *attacker) to(mac net.HardwareAddr, kind uint16, payload []byte) []byte {
	return frame(mac, a.mac, kind, payload)
}

// marker is dropped after what was sent before it.
func (a *attacker) marker() []byte {
	return a.to(gatewayMAC, unix.ETH_P_IP, datagram(a.victim, outside4, 53))
}

// advertisement has the attacker as router for half an hour, with a prefix to make
// addresses of.
func advertisement(prefix netip.Addr) []byte {
	forever := []byte{0, 1, 0, 0, 0, 1, 0, 0}
	return slices.Concat([]byte{64, 0, 0x07, 0x08}, make([]byte, 8), []byte{3, 4, 64, 0xc0}, forever, make([]byte, 4), prefix.AsSlice())
}

// option is a link-layer address, of the source (1) or the target (2).
func option(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

func attacks() []attack {
	prefix := netip.MustParseAddr("2001:db8:bad::")
	one := func(f func(a *attacker) []byte) func(*attacker) [][]byte {
		return func(a *attacker) [][]byte { return [][]byte{f(a)} }
	}
	return []attack{
		{"router advertisement", one(func(a *attacker) []byte {
			return a.to(everyMAC, unix.ETH_P_IPV6, icmp6(a.local, everyNode, 134, advertisement(prefix)...))
		}), "nd-router-advert"},
		{"router advertisement from an address of no MAC", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(netip.MustParseAddr("fe80::bad"), felix.PodGateway6, 134, advertisement(prefix)...))
		}), "nd-router-advert"},
		{"redirect", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(a.local, a.IPv6.Addr(), 137,
				slices.Concat(make([]byte, 4), a.local.AsSlice(), outside6.AsSlice(), option(2, a.mac))...))
		}), "nd-redirect"},
		{"redirect, IPv4", one(func(a *attacker) []byte {
			stated := datagram(a.IPv4.Addr(), outside4, 53)
			return a.to(gatewayMAC, unix.ETH_P_IP, upper(a.own, a.IPv4.Addr(), unix.IPPROTO_ICMP, 2,
				slices.Concat([]byte{5, 1, 0, 0}, a.own.AsSlice(), stated)))
		}), "type redirect"},
		{"foreign source", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IP, datagram(a.victim, outside4, 53))
		}), "\t\tcounter"},
		{"foreign source, IPv6", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IPV6, datagram(a.endpoint.Addresses[1], outside6, 53))
		}), "\t\tcounter"},
		{"neighbour solicitation from a foreign address", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(a.endpoint.Addresses[1], felix.PodGateway6, 135,
				slices.Concat(make([]byte, 4), felix.PodGateway6.AsSlice(), option(1, a.mac))...))
		}), "\t\tcounter"},
		{"neighbour advertisements of others", func(a *attacker) (out [][]byte) {
			for _, whose := range []netip.Addr{a.endpoint.Addresses[1], gateway6, a.IPv6.Addr()} {
				body := slices.Concat([]byte{0xa0, 0, 0, 0}, whose.AsSlice(), option(2, a.mac))
				out = append(out, a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(a.local, felix.PodGateway6, 136, body...)),
					a.to(everyMAC, unix.ETH_P_IPV6, icmp6(a.local, everyNode, 136, body...)))
			}
			return append(out, a.marker())
		}, "\t\tcounter"},
		{"ARP for others", func(a *attacker) (out [][]byte) {
			for _, whose := range []netip.Addr{a.victim, gateway4, a.IPv4.Addr(), outside4} {
				out = append(out,
					a.to(broadcast, unix.ETH_P_ARP, arp(1, a.mac, whose, whose)), // gratuitous
					a.to(broadcast, unix.ETH_P_ARP, arp(2, a.mac, whose, whose)),
					a.to(gatewayMAC, unix.ETH_P_ARP, arp(2, a.mac, whose, a.IPv4.Addr())),
					a.to(gatewayMAC, unix.ETH_P_ARP, arp(1, a.mac, whose, a.IPv4.Addr())),
					a.to(gatewayMAC, unix.ETH_P_ARP, arp(1, a.mac, whose, pod.Gateway4)))
			}
			return append(out, a.marker())
		}, "\t\tcounter"},
		{"BGP", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IP, segment(a.own, a.IPv4.Addr(), 179))
		}), "tcp dport 179"},
		{"BGP by a link-local address", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IPV6, segment(a.local, felix.PodGateway6, 179))
		}), "tcp dport 179"},
		{"BFD", one(func(a *attacker) []byte {
			return a.to(gatewayMAC, unix.ETH_P_IP, datagram(a.own, a.IPv4.Addr(), 3784))
		}), "udp dport 3784"},
	}
}

// TestHostilePod has a pod send what would make it another's router, neighbour or
// BGP speaker. Nothing of the node may change, whether it forwards IPv6 or not.
func TestHostilePod(t *testing.T) {
	for _, forwarding := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 forwarding %t", forwarding), func(t *testing.T) {
			t.Parallel()
			a := newAttacker(t, forwarding)
			for _, x := range attacks() {
				a.suffer(t, x)
			}
			a.steal(t)
		})
	}
}

// steal has the tenant ask for what is others': their addresses as floating ones,
// and the name of their interface.
func (a *attacker) steal(t *testing.T) {
	t.Helper()
	before := a.state()
	a.mu.Lock()
	s, greedy := a.snapshot, a.others[0]
	s.Felix = []model.FelixConfiguration{{Name: "default", FloatingIPs: true}}
	s.Pools = append(slices.Clone(s.Pools), model.Pool{Name: "any", CIDR: netip.MustParsePrefix("0.0.0.0/0"), Manual: true})
	greedy.FloatingIPs = []netip.Addr{a.victim, gateway4, a.IPv4.Addr()}
	a.others = []model.Endpoint{greedy}
	a.mu.Unlock()
	a.tell(s, nil)
	eventually(t, "floating addresses are on, and the attacker has none", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.failure == nil && len(a.problems) == len(greedy.FloatingIPs)
	})
	if text := a.ns.Run("nft", "list", "map", "inet", felix.TableName, "floating4"); strings.Contains(text, "elements") {
		t.Errorf("the attacker has floating addresses: %s", text)
	}
	_, err := a.plugger.Attach(t.Context(), pod.Spec{
		ContainerID: strings.Repeat("b", 64), Interface: "eth1", NetNS: a.pod.Path, Namespace: "tenant", Pod: "chosen",
		HostInterface: a.endpoint.HostInterface, Addresses: []netip.Addr{netip.MustParseAddr("10.65.1.12")},
	})
	if !errors.Is(err, pod.ErrNameTaken) {
		t.Errorf("attach by a name that collides: %v", err)
	}
	if diff := cmp.Diff(before, a.state()); diff != "" {
		t.Errorf("the node is another one (-before +after):\n%s", diff)
	}
	a.ns.Run("ping", "-c", "1", "-W", "5", a.victim.String())
}

func (a *attacker) suffer(t *testing.T, x attack) {
	t.Helper()
	before, dropped := a.state(), a.dropped(t, x.rule)
	frames := x.frames(a)
	sendFrames(t, a.pod, "eth0", frames...)
	t.Log(x.name)
	eventually(t, x.name+" is counted by the rule with "+x.rule, func() bool { return a.dropped(t, x.rule) > dropped })
	if diff := cmp.Diff(before, a.state()); diff != "" {
		t.Errorf("%s: the node is another one (-before +after):\n%s", x.name, diff)
	}
}

// TestManyNames has a pod ask in many names, each of which the node would note in
// its table of neighbours, which is full at 1,024 for all links of the machine.
func TestManyNames(t *testing.T) {
	t.Parallel()
	const names = 600
	a := newAttacker(t, true)
	var frames [][]byte
	for i := range names {
		last := []byte{byte(i >> 8), byte(i)}
		other, _ := netip.AddrFromSlice(append([]byte{10, 77}, last...))
		local, _ := netip.AddrFromSlice(slices.Concat([]byte{0xfe, 0x80}, make([]byte, 12), last))
		frames = append(frames,
			a.to(gatewayMAC, unix.ETH_P_ARP, arp(1, a.mac, other, a.IPv4.Addr())),
			a.to(gatewayMAC, unix.ETH_P_ARP, arp(1, a.mac, other, pod.Gateway4)),
			a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(local, felix.PodGateway6, 135,
				slices.Concat(make([]byte, 4), felix.PodGateway6.AsSlice(), option(1, a.mac))...)))
	}
	dropped, began := a.dropped(t, "\t\tcounter"), time.Now()
	sendFrames(t, a.pod, "eth0", append(frames, a.marker())...)
	eventually(t, "the flood is dropped", func() bool { return a.dropped(t, "\t\tcounter") > dropped })
	if n := strings.Count(a.ns.IP("-4 neigh show dev "+a.link), "\n"); n != 1 {
		t.Errorf("%d neighbours by ARP, want the pod alone", n)
	}
	// Pods that start are not held up by it, however many do.
	sendFrames(t, a.pod, "eth0", a.to(gatewayMAC, unix.ETH_P_IPV6, icmp6(a.local, felix.PodGateway6, 135,
		slices.Concat(make([]byte, 4), felix.PodGateway6.AsSlice(), option(1, a.mac))...)))
	eventually(t, "who asks by the address of his hardware address is known", func() bool {
		return strings.Contains(a.ns.IP("-6 neigh show dev "+a.link), a.local.String())
	})
	n := strings.Count(a.ns.IP("-6 neigh show dev "+a.link), "\n")
	if most := felix.LinkLocalRate*(2+int(time.Since(began).Seconds())) + 2; n > most { // the burst, what came since, the pod's own
		t.Errorf("%d neighbours of IPv6, want at most %d", n, most)
	}
}
