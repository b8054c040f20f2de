package gobgp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// uplink is a router that announces 10.244.50.0/26 with a MED; -1: without one.
type uplink struct {
	as, med int
	frr     bool
}

func (u uplink) start(h *bgptest.Host, node string) {
	if u.frr {
		set := fmt.Sprintf(" set metric %d\n", u.med)
		if u.med < 0 {
			set = ""
		}
		const network = "  network 10.244.50.0/26\n"
		conf := bgptest.FRRPeer(u.as, h.V4, node, 64512, "", "10.244.50.0/26")
		h.StartFRR(strings.Replace(conf, network, network+"  neighbor "+node+" route-map med out\n", 1) + "route-map med permit 10\n" + set)
		return
	}
	set := fmt.Sprintf(" { bgp_med = %d; }", u.med)
	if u.med < 0 {
		set = ""
	}
	h.StartBIRD("protocol static { ipv4; route 10.244.50.0/26 blackhole" + set + "; }\n" + bgptest.BIRDPeer("node", h.V4, u.as, node, 64512, ""))
}

// MED decides between the paths of one neighbour AS and between no others (RFC
// 4271 9.1.2.2 c); one that is missing is 0. The release compares all of them.
func TestMultipathMED(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		uplinks []uplink
		all     string // next hops by the RFC
		differs bool   // the release has others
	}{
		"of-three-AS":     {[]uplink{{as: 65001, med: 10}, {as: 65002, med: 20, frr: true}, {as: 65003, med: 10}}, "10.9.0.2 10.9.0.3 10.9.0.4", true},
		"missing":         {[]uplink{{as: 65001, med: -1}, {as: 65002, med: 20, frr: true}, {as: 65003, med: 0}}, "10.9.0.2 10.9.0.3 10.9.0.4", true},
		"of-one-AS":       {[]uplink{{as: 65001, med: 10}, {as: 65001, med: 20, frr: true}, {as: 65001, med: 10}}, "10.9.0.2 10.9.0.4", false},
		"missing-is-zero": {[]uplink{{as: 65001, med: -1}, {as: 65001, med: 0, frr: true}, {as: 65001, med: 5}}, "10.9.0.2 10.9.0.3", false},
		"of-both":         {[]uplink{{as: 65001, med: 10}, {as: 65001, med: 20, frr: true}, {as: 65002, med: 30}}, "10.9.0.2 10.9.0.4", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a := n.Host(1)
			snap := clusterOf(a)
			for i, u := range c.uplinks {
				h := n.Host(2 + i)
				u.start(h, a.V4)
				snap = withPeer(snap, h.V4, model.ASN(u.as))
			}
			s := startSpeaker(t, a, "")
			s.apply(desired(t, snap))
			for _, p := range snap.Peers {
				p := p.PeerIP.String()
				bgptest.Eventually(t, "route of "+p, func() string { return received(s, p) })
			}
			if patched("0008") || !c.differs {
				bgptest.Eventually(t, "next hops", bgptest.Contains(s.learned, "10.244.50.0/26 via ["+c.all+"] from"))
			} else {
				bgptest.Eventually(t, "fewer next hops", bgptest.Lacks(s.learned, "["+c.all+"]"))
			}
		})
	}
}

// received says what is missing until a peer has told its one route.
func received(s *process, addr string) string {
	for _, p := range s.state().Peers {
		if p.Address.String() == addr && p.Accepted["ipv4"] == 1 {
			return ""
		}
	}
	return s.peers()
}
