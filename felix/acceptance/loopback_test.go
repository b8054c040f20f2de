package acceptance

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestNodeAddressOnLoopback has a node whose address is on lo and that is left by
// two links. MTUs are the smaller link's, and a packet for another node's tunnel
// leaves by whichever link the route says.
func TestNodeAddressOnLoopback(t *testing.T) {
	n := newNode(t, 1, "a", 1)
	routers := []*nstest.NS{nstest.New(t), nstest.New(t)}
	n.ns.IP("addr add 10.255.0.1/32 dev lo")
	n.ns.Veth("eth0", routers[0], "to-a", []string{"10.1.0.1/24"}, []string{"10.1.0.254/24"})
	n.ns.Veth("eth1", routers[1], "to-a", []string{"10.2.0.1/24"}, []string{"10.2.0.254/24"})
	n.ns.IP("link set eth1 mtu 1400")
	n.ns.IP("route add default via 10.1.0.254")
	n.IPv4, n.IPv6 = netip.MustParsePrefix("10.255.0.1/32"), netip.Prefix{}
	other := model.Node{Name: "b", IPv4: netip.MustParsePrefix("10.255.0.2/32"), VXLANTunnel: netip.MustParseAddr("10.65.2.2")}
	hop := []netip.Addr{netip.MustParseAddr("10.2.0.254")}
	n.tell(model.Snapshot{
		Synced: true, Nodes: []model.Node{n.Node, other},
		Pools: []model.Pool{{Name: "v4", CIDR: netip.MustParsePrefix("10.65.0.0/16"), BlockSize: 26, VXLAN: model.EncapAlways}},
	}, []model.Learned{
		{Prefix: netip.MustParsePrefix("10.65.2.0/26"), Multipath: &model.Multipath{NextHops: []netip.Addr{other.IPv4.Addr()}}},
		{Prefix: other.IPv4, Multipath: &model.Multipath{NextHops: hop}},
	})
	n.run(t)
	eventually(t, "the tunnel has the MTU of the smaller link", func() bool {
		text, _ := n.ns.Try("ip", "-d", "link", "show", "dev", felix.VXLANDevice)
		return strings.Contains(text, "mtu 1350") && !strings.Contains(text, " dev ")
	})
	eventually(t, "the other node's pods are behind the tunnel", func() bool {
		return n.group(netip.MustParsePrefix("10.65.2.0/26")) == felix.VXLANDevice
	})
	n.mu.Lock()
	mtu := n.mtu
	n.mu.Unlock()
	if _, err := n.plugger.Attach(t.Context(), pod.Spec{
		ContainerID: strings.Repeat("c", 64), Interface: "eth0", NetNS: nstest.New(t).Path, Namespace: "default", Pod: "next",
		HostInterface: pod.HostInterface("default", "next"), Addresses: []netip.Addr{netip.MustParseAddr("10.65.1.12")}, MTU: mtu,
	}); err != nil || mtu != 1350 {
		t.Errorf("a pod with the node's MTU, %d: %v", mtu, err)
	}
	// The outer packet: to the second router, from the node's address.
	group := n.ns.IP("route get 10.255.0.2 from 10.255.0.1")
	if !strings.Contains(group, "dev eth1") {
		t.Errorf("the outer packet goes another way: %s", group)
	}
	came := func() string { return routers[1].IP("-s -o link show dev to-a") }
	before := came()
	_, _ = n.pod.Try("ping", "-c", "1", "-W", "1", "10.65.2.10") // nobody answers
	if came() == before {
		t.Error("the second router saw no tunnelled packet")
	}
}
