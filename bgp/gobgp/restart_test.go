package gobgp

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// Killed and started again, the speaker loses nothing at its peers: both keep
// the routes and say why.
func TestGracefulRestart(t *testing.T) {
	for _, how := range []string{"kill", "leave"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b, f := n.Host(1), n.Host(2), n.Host(3)
			bird := b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, "graceful restart on;"))
			frr := f.StartFRR(bgptest.FRRPeer(65002, f.V4, a.V4, 64512, " bgp graceful-restart\n"))
			cfg := desired(t, withPeer(withPeer(clusterOf(a), b.V4, 65001), f.V4, 65002))
			s := startSpeaker(t, a, "")
			s.apply(cfg)
			s.established(b.V4)
			s.established(f.V4)
			there := []string{"10.244.1.0/26", "fd44::40/122"}
			atBIRD := bgptest.Contains(bird.Routes, there...)
			atFRR := bgptest.Contains(func() string { return frr.Ask("show bgp ipv4 unicast", "show bgp ipv6 unicast") }, there...)
			bgptest.Eventually(t, "BIRD", atBIRD)
			bgptest.Eventually(t, "FRR", atFRR)
			both := func() string {
				if bad := atBIRD(); bad != "" {
					return "BIRD: " + bad
				}
				if bad := atFRR(); bad != "" {
					return "FRR: " + bad
				}
				return ""
			}
			if how == "kill" {
				s.kill()
			} else {
				s.leave()
			}
			bgptest.Eventually(t, "BIRD waits for the restart", bgptest.Contains(func() string { return bird.Protocol("node") }, "Neighbor graceful restart active"))
			bgptest.Eventually(t, "FRR keeps stale routes", bgptest.Contains(func() string { return frr.Ask("show bgp ipv4 unicast") }, "S"))
			bgptest.Steady(t, "while down", 2*time.Second, both)
			s = startSpeaker(t, a, "restarting")
			s.apply(cfg)
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.established(b.V4)
				s.established(f.V4)
			}()
			for waiting := true; waiting; {
				select {
				case <-done:
					waiting = false
				default:
					bgptest.Steady(t, "while coming back", 100*time.Millisecond, both)
				}
			}
			bgptest.Steady(t, "after", 7*time.Second, both)
			bgptest.Eventually(t, "BIRD is done", bgptest.Lacks(func() string { return bird.Protocol("node") }, "graceful restart active"))
			bgptest.Eventually(t, "FRR has fresh routes", bgptest.Lacks(func() string { return frr.Ask("show bgp ipv4 unicast 10.244.1.0/26") }, "stale"))
		})
	}
}

// The other way round: a peer that dies without a word keeps its routes here
// until its restart time is over; one that falls silent loses them with the
// hold timer.
func TestHelper(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	proto := func(restartTime string) string {
		return `protocol static { ipv4; route 10.244.2.0/26 blackhole; }
` + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, "graceful restart on; graceful restart time "+restartTime+";")
	}
	b.StartBIRD(proto("4"))
	s := startSpeaker(t, a, "")
	snap := withPeer(clusterOf(a), b.V4, 65001, func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/hold-time": "3s"}
	})
	s.apply(desired(t, snap))
	route := bgptest.Contains(s.learned, "10.244.2.0/26")
	bgptest.Eventually(t, "learned", route)
	b.Run("kill -9 $(cat " + b.File("bird.pid") + ")")
	bgptest.Eventually(t, "marked stale", bgptest.Contains(s.learned, "10.244.2.0/26 via [10.9.0.2] from [10.9.0.2] stale"))
	bgptest.Eventually(t, "dropped after the restart time", bgptest.Lacks(s.learned, "10.244.2.0/26"))

	b.Run("rm -f " + b.File("bird.ctl"))
	b.StartBIRD(proto("600"))
	bgptest.Eventually(t, "back", route)
	bgptest.Eventually(t, "fresh", bgptest.Lacks(s.learned, "stale"))
	b.Unplug()
	bgptest.Eventually(t, "dropped with the hold timer, long before the restart time", bgptest.Lacks(s.learned, "10.244.2.0/26"))
}

// A peer that comes back without graceful restart has forgotten: what it does
// not tell again goes at once.
func TestHelperOfOneWhoForgot(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	proto := func(routes, gr string) string {
		return "protocol static { ipv4; " + routes + " }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, "graceful restart "+gr+";")
	}
	b.StartBIRD(proto("route 10.244.2.0/26 blackhole; route 10.244.3.0/26 blackhole;", "on; graceful restart time 600"))
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65001)))
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.2.0/26", "10.244.3.0/26"))
	b.Run("kill -9 $(cat " + b.File("bird.pid") + ")")
	bgptest.Eventually(t, "kept", bgptest.Contains(s.learned, "10.244.3.0/26 via [10.9.0.2] from [10.9.0.2] stale"))
	b.Run("rm -f " + b.File("bird.ctl"))
	b.StartBIRD(proto("route 10.244.2.0/26 blackhole;", "off"))
	bgptest.Eventually(t, "dropped", bgptest.Lacks(s.learned, "10.244.3.0/26"))
	bgptest.Eventually(t, "told again", bgptest.Contains(s.learned, "10.244.2.0/26 via [10.9.0.2] from [10.9.0.2]\n"))
}
