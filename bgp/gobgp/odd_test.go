package gobgp

import (
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// Another cluster at the same router, with the same pool and an AS number of its
// own: each of its blocks is told as such, once an AS number; a summary, and what the
// router itself says, are not.
func TestForeignBlocks(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	routes := func(foreign string) string {
		return "protocol static { ipv4; " + foreign + `
  route 10.244.0.0/17 blackhole { bgp_path.prepend(65301); };
  route 10.244.60.0/26 blackhole;
  route 192.0.2.0/26 blackhole { bgp_path.prepend(65301); };
}
` + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, "")
	}
	bird := b.StartBIRD(routes("route 10.244.50.0/26 blackhole { bgp_path.prepend(65300); };"))
	s := startSpeaker(t, a, "")
	snap := withPeer(clusterOf(a), b.V4, 65001)
	snap.Pools[0].BlockSize = 26
	cfg := desired(t, snap)
	s.apply(cfg)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26", "10.244.0.0/17", "10.244.60.0/26", "192.0.2.0/26"))
	if got, want := s.odd(), "10.244.50.0/26 from 10.9.0.2 by AS 65300\n"; got != want {
		t.Errorf("odd:\n%swant:\n%s", got, want)
	}
	if problems := bgp.ReceivedProblems(cfg, s.state().Peers, s.state().Odd); len(problems) != 1 || problems[0].Reason != bgp.ReasonForeignBlock {
		t.Errorf("problems: %v", problems)
	}
	bird.Reconfigure(routes(""))
	bgptest.Eventually(t, "gone", bgptest.Lacks(s.odd, "65300"))
}
