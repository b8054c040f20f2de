package gobgp

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// A router that is peered with at its loopback, in both families. The routes
// there are what the agent makes of reachableBy; the peers are tried before
// they are there, as on a node. (The router has no other session with the node:
// BIRD keeps a second protocol with the same neighbour idle.)
func TestPeerOnLoopback(t *testing.T) {
	for _, router := range []struct {
		name  string
		start func(a, b *bgptest.Host) (routes func() string)
		sees  []string
	}{
		{"BIRD", func(a, b *bgptest.Host) func() string {
			return b.StartBIRD(static + bgptest.BIRDPeer("four", "192.0.2.1", 65001, a.V4, 64512, "") + bgptest.BIRDPeer("six", "fd99::1", 65001, a.V6, 64512, "")).Routes
		}, []string{"10.244.1.0/26", "BGP.next_hop: 10.9.0.1", "fd44::40/122", "BGP.next_hop: fd09::1"}},
		{"FRR", func(a, b *bgptest.Host) func() string {
			four := bgptest.FRRPeer(65001, b.V4, a.V4, 64512, " neighbor "+a.V4+" update-source 192.0.2.1\n neighbor "+a.V6+" remote-as 64512\n neighbor "+a.V6+" update-source fd99::1\n"+
				" neighbor "+a.V6+" ebgp-multihop 255\n neighbor "+a.V6+" timers connect 1\n address-family ipv6 unicast\n  neighbor "+a.V6+" activate\n exit-address-family\n",
				"10.244.50.0/26", "fd44:50::/64")
			frr := b.StartFRR(four)
			return func() string { return frr.Ask("show bgp ipv4 unicast json", "show bgp ipv6 unicast json") }
		}, []string{`"10.244.1.0/26"`, `"fd44::40/122"`, `"ip":"10.9.0.1"`, `"ip":"fd09::1"`}},
	} {
		t.Run(router.name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			b.Run("ip address add 192.0.2.1/32 dev lo; ip address add fd99::1/128 dev lo")
			routes := router.start(a, b)
			snap := clusterOf(a)
			for _, p := range []struct{ at, by string }{{"192.0.2.1", b.V4}, {"fd99::1", b.V6}} {
				snap = withPeer(snap, p.at, 65001, func(o *model.BGPPeer) { o.ReachableBy = netip.MustParseAddr(p.by) })
			}
			s := startSpeaker(t, a, "confined")
			config := desired(t, snap)
			s.apply(config)
			bgptest.Eventually(t, "the peers are tried in vain", bgptest.Contains(s.peers, "192.0.2.1 as 65001 GlobalPeer Active", "fd99::1 as 65001 GlobalPeer Active"))
			for _, p := range config.Peers {
				a.Run(pathTo(p))
			}
			s.established("192.0.2.1")
			s.established("fd99::1")
			bgptest.Eventually(t, "at the router", bgptest.Contains(routes, router.sees...))
			bgptest.Eventually(t, "learned", bgptest.Contains(s.learned,
				"10.244.50.0/26 via [192.0.2.1] from [192.0.2.1]", "fd44:50::/64 via [fd99::1] from ["))
		})
	}
}

// static is what a BIRD on a loopback announces.
const static = "protocol static s4 { ipv4; route 10.244.50.0/26 blackhole; }\nprotocol static s6 { ipv6; route fd44:50::/64 blackhole; }\n"

// pathTo is the route that the data plane makes of reachableBy.
func pathTo(p bgp.Peer) string {
	return "ip route add " + p.Address.String() + " via " + p.ReachableBy.String()
}
