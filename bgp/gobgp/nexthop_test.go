package gobgp

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// IPv4 routes over an IPv6 session, with IPv6 next hops where the peer sends
// them (RFC 8950).
func TestIPv4OverIPv6(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(`protocol static { ipv4; route 10.244.50.0/26 blackhole; }
protocol static { ipv6; route fd44:50::/64 blackhole; }
protocol bgp node { local fd09::2 as 65001; neighbor fd09::1 as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; }; }
`)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V6, 65001)))
	s.established(b.V6)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via [fd09::2]", "fd44:50::/64 via [fd09::2]"))
	bgptest.Eventually(t, "told", bgptest.Contains(bird.Routes, own, "BGP.next_hop: 10.9.0.1", "fd44::40/122", "BGP.next_hop: fd09::1"))
}

// A router known by its link-local address alone.
func TestUnnumbered(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	for _, h := range []*bgptest.Host{a, b} { // addresses on the loopback, none on the link
		h.Run("ip addr flush dev e0 scope global; ip addr add " + h.V4 + "/32 dev lo; ip addr add " + h.V6 + "/128 dev lo")
	}
	ll := func(h *bgptest.Host) string {
		return strings.TrimSpace(h.Run(`ip -6 -o addr show dev e0 scope link | sed "s|.*inet6 \([^/]*\)/.*|\1|"`))
	}
	frr := b.StartFRR(`router bgp 65001
 bgp router-id 10.9.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor e0 interface remote-as 64512
 neighbor e0 timers connect 1
 address-family ipv4 unicast
  neighbor e0 activate
  network 10.244.50.0/26
 exit-address-family
 address-family ipv6 unicast
  neighbor e0 activate
  network fd44:50::/64
 exit-address-family
interface e0
 ipv6 nd ra-interval 1
 no ipv6 nd suppress-ra
`)
	s := startSpeaker(t, a, "")
	peer := ll(b) + "%e0"
	snap := withPeer(clusterOf(a), peer, 65001)
	snap.Peers[0].Name = "router"
	// FRR listens for whoever is on the link once it has heard from it
	frr.Ask("configure terminal", "router bgp 65001", "no neighbor e0 interface remote-as 64512",
		"neighbor "+ll(a)+" remote-as 64512", "neighbor "+ll(a)+" interface e0", "neighbor "+ll(a)+" timers connect 1", "neighbor "+ll(a)+" capability extended-nexthop",
		"address-family ipv4 unicast", "neighbor "+ll(a)+" activate", "exit-address-family",
		"address-family ipv6 unicast", "neighbor "+ll(a)+" activate")
	s.apply(desired(t, snap))
	s.established(peer)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26 via ["+peer+"]", "fd44:50::/64 via ["+peer+"]"))
	bgptest.Eventually(t, "v4 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv4 unicast 10.244.1.0/26") }, "valid", ll(a)))
	bgptest.Eventually(t, "v6 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv6 unicast fd44::40/122") }, "valid", ll(a)))
}
