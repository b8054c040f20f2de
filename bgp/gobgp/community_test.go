package gobgp

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// The well-known communities, on what a node without a router tells this one, which
// has one: RFC 1997, RFC 7999 (no more than any other) and RFC 8326.
func TestWellKnownCommunities(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, orphan, c := n.Host(1), n.Host(2), n.Host(3)
	orphan.StartBIRD(`protocol static { ipv4;
  route 10.244.50.0/26 blackhole;
  route 10.244.51.0/26 blackhole { bgp_community.add((65535,65281)); };
  route 10.244.52.0/26 blackhole { bgp_community.add((65535,65282)); };
  route 10.244.53.0/26 blackhole { bgp_community.add((65535,65283)); };
  route 10.244.54.0/26 blackhole { bgp_community.add((65535,666)); };
  route 10.244.55.0/26 blackhole { bgp_community.add((65535,0)); };
}
` + bgptest.BIRDPeer("node", orphan.V4, 64512, a.V4, 64512, ""))
	router := c.StartBIRD(bgptest.BIRDPeer("node", c.V4, 65001, a.V4, 64512, ""))
	snap := withPeer(withNode(clusterOf(a), "b", orphan), c.V4, 65001)
	snap.Peers[0].Node = "a"
	for i := range snap.Nodes {
		snap.Nodes[i].IPv6 = netip.Prefix{}
	}
	snap.Blocks = snap.Blocks[:1]
	// what the node marks itself is for the router to obey
	snap.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{{CIDR: pfx(own), Communities: []string{"65535:65281"}}}
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "all are learned", bgptest.Contains(s.learned,
		"10.244.50.0/26", "10.244.51.0/26", "10.244.52.0/26", "10.244.53.0/26", "10.244.54.0/26", "10.244.55.0/26"))
	bgptest.Eventually(t, "own, marked", bgptest.Contains(func() string { return router.Route(own) }, "BGP.community: (65535,65281)"))
	bgptest.Eventually(t, "blackhole, as it is", bgptest.Contains(func() string { return router.Route("10.244.54.0/26") }, "BGP.community: (65535,666)"))
	bgptest.Eventually(t, "shutdown, as it is", bgptest.Contains(func() string { return router.Route("10.244.55.0/26") }, "BGP.community: (65535,0)"))
	bgptest.Eventually(t, "passed on", bgptest.Contains(router.Routes, "10.244.50.0/26"))
	if bad := bgptest.Lacks(router.Routes, "10.244.51.0/26", "10.244.52.0/26", "10.244.53.0/26")(); bad != "" {
		t.Error(bad)
	}
}
