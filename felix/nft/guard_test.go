package nft

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// socket opens one inside a namespace that does not wait for ever.
func socket(t *testing.T, ns *nstest.NS, kind, proto int) (fd int) {
	t.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := in.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, proto)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// A program that another test starts holds it for a moment after it is closed.
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func at(address string, port int) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: netip.MustParseAddr(address).As4(), Port: port}
}

// arrives sends a packet and says whether it comes. A port of 0 stands for IPIP.
func arrives(t *testing.T, from, to *nstest.NS, source, destination string, port int) bool {
	t.Helper()
	got, _ := sends(t, from, to, source, destination, destination, port)
	return got
}

// sends is arrives for a packet whose destination somebody rewrites to another
// address, and tells whom it seems to be from.
func sends(t *testing.T, from, to *nstest.NS, source, destination, rewritten string, port int) (arrived bool, by string) {
	t.Helper()
	kind, proto := unix.SOCK_DGRAM, 0
	if port == 0 {
		kind, proto = unix.SOCK_RAW, unix.IPPROTO_IPIP
	}
	receiver, sender := socket(t, to, kind, proto), socket(t, from, kind, proto)
	defer func() { _, _ = unix.Close(receiver), unix.Close(sender) }()
	if err := unix.Bind(receiver, at(rewritten, port)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(sender, at(source, port)); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(time.Now().UnixNano())
	if err := unix.Sendto(sender, []byte(text), 0, at(destination, port)); err != nil {
		t.Fatal(err)
	}
	for {
		b := make([]byte, 256)
		n, peer, err := unix.Recvfrom(receiver, b, 0)
		if err != nil {
			return false, ""
		}
		if peer, ok := peer.(*unix.SockaddrInet4); ok && len(text) <= n && string(b[n-len(text):n]) == text {
			return true, netip.AddrFrom4(peer.Addr).String()
		}
	}
}

func TestTunnelledPacketsFromOutside(t *testing.T) {
	w := newWorld(t)
	r := open(t, w.node)
	const (
		outside, node, pod = "192.168.7.2", "192.168.7.1", "10.65.1.1"
		ipip               = 0
	)
	guard := func(nodes []netip.Addr, external []netip.Prefix) felix.Ruleset {
		rules := w.rules()
		rules.NAT = felix.NAT{}
		rules.Tunnels = felix.TunnelGuard{IPIP: true, VXLANPorts: []int{4789, 8472}, Nodes: nodes, External: external}
		return rules
	}
	self := netip.MustParseAddr(node)
	w.outside.IP("route add 10.65.1.0/24 via " + node)
	for _, port := range []int{4789, 8472, ipip} {
		if !arrives(t, w.outside, w.node, outside, node, port) || !arrives(t, w.known, w.outside, pod, outside, port) {
			t.Fatalf("port %d does not pass without rules: the test proves nothing", port)
		}
	}
	apply(t, r, guard([]netip.Addr{self}, nil))
	for _, port := range []int{4789, 8472, ipip} {
		if arrives(t, w.outside, w.node, outside, node, port) {
			t.Errorf("port %d: a stranger's tunnelled packet is taken", port)
		}
		if arrives(t, w.known, w.node, pod, node, port) {
			t.Errorf("port %d: a pod's tunnelled packet is taken", port)
		}
		if !arrives(t, w.known, w.outside, pod, outside, port) {
			t.Errorf("port %d: a pod that may send tunnelled packets cannot", port)
		}
	}
	if !arrives(t, w.outside, w.node, outside, node, 4790) || !arrives(t, w.outside, w.known, outside, pod, 4789) {
		t.Error("packets that no tunnel takes are dropped")
	}
	rules := guard([]netip.Addr{self}, nil)
	rules.SourceCheck.NoIPIP, rules.SourceCheck.NoVXLAN = true, true
	apply(t, r, rules)
	for _, port := range []int{4789, 8472, ipip} {
		if arrives(t, w.known, w.outside, pod, outside, port) {
			t.Errorf("port %d: a pod that may not send tunnelled packets can", port)
		}
	}
	for name, rules := range map[string]felix.Ruleset{
		"node":          guard([]netip.Addr{netip.MustParseAddr(outside), self}, nil),
		"external host": guard([]netip.Addr{self}, prefixes(outside+"/32")),
	} {
		apply(t, r, rules)
		for _, port := range []int{4789, 8472, ipip} {
			if !arrives(t, w.outside, w.node, outside, node, port) {
				t.Errorf("port %d: tunnelled packets of a %s are dropped", port, name)
			}
		}
	}
}

// TestAnotherPodsConnection has a pod send with the addresses and ports of a
// connection that another pod has, and that connection tracking knows.
func TestAnotherPodsConnection(t *testing.T) {
	w := newWorld(t)
	r := open(t, w.node)
	rules := w.rules()
	rules.SourceCheck.Pods = append(rules.SourceCheck.Pods, felix.PodSource{Interface: "cali0002", Sources: prefixes("10.65.2.1/32")})
	apply(t, r, rules)
	w.unknown.IP("addr add 10.65.1.1/32 dev eth0")
	const port = 9999
	for range 2 { // the second packet is of a known connection
		if !arrives(t, w.known, w.outside, "10.65.1.1", "192.168.7.2", port) {
			t.Fatal("the pod's own packet is dropped")
		}
	}
	if !arrives(t, w.unknown, w.outside, "10.65.2.1", "192.168.7.2", port) {
		t.Fatal("the other pod's own packet is dropped: the test proves nothing")
	}
	if arrives(t, w.unknown, w.outside, "10.65.1.1", "192.168.7.2", port) {
		t.Error("a pod speaks in another's connection")
	}
}
