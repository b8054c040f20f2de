package gobgp

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// With BFD a peer that falls silent is noticed long before its hold timer.
func TestBFD(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	b.StartBIRD(`protocol static { ipv4; route 10.244.50.0/26 blackhole; }
protocol bfd { interface "e0" { interval 300 ms; multiplier 3; }; }
protocol bgp node { local 10.9.0.2 as 65001; neighbor 10.9.0.1 as 64512; bfd on; connect delay time 1; connect retry time 1; error wait time 1, 2;
  graceful restart on; ipv4 { import all; export all; }; ipv6 { import all; export all; }; }
`)
	snap := withPeer(clusterOf(a), b.V4, 65001, func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/bfd": "300ms"}
	})
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	s.established(b.V4)
	bgptest.Eventually(t, "BFD", bgptest.Contains(s.peers, `bfd "Up"`))
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26"))
	b.Unplug()
	// the hold time is 90 s, the wait here 40
	bgptest.Eventually(t, "route gone", bgptest.Lacks(s.learned, "10.244.50.0/26"))
	b.Plug()
	bgptest.Eventually(t, "route back", bgptest.Contains(s.learned, "10.244.50.0/26"))
}

// frrOfARange takes any node of its subnet as a peer, and watches it.
const frrOfARange = `router bgp 65001
 bgp router-id 10.9.0.2
 no bgp ebgp-requires-policy
 no bgp network import-check
 no bgp default ipv4-unicast
 neighbor nodes peer-group
 neighbor nodes remote-as 64512
 neighbor nodes bfd 3 300 300
 bgp listen range 10.9.0.0/24 peer-group nodes
 address-family ipv4 unicast
  network 10.244.50.0/26
  neighbor nodes activate
 exit-address-family
`

// BFD is turned on under sessions that stand, with routers that take any node of
// their subnet as a peer and so know nothing of it before its session is up. The
// sessions stay, and a router that falls silent is noticed.
func TestBFDTurnedOn(t *testing.T) {
	for name, start := range map[string]func(*bgptest.Host){
		"BIRD": func(b *bgptest.Host) {
			b.StartBIRD(`protocol static { ipv4; route 10.244.50.0/26 blackhole; }
protocol bfd { interface "*" { interval 300 ms; multiplier 3; }; }
protocol bgp node { local 10.9.0.2 as 65001; neighbor range 10.9.0.0/24 as 64512; direct; bfd on; hold time 90; connect delay time 1; connect retry time 1; error wait time 1, 2;
  graceful restart aware; ipv4 { import all; export all; }; }
`)
		},
		"FRR": func(b *bgptest.Host) {
			b.StartFRR(frrOfARange)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			start(b)
			snap := withPeer(clusterOf(a), b.V4, 65001)
			s := startSpeaker(t, a, "debug")
			s.apply(desired(t, snap))
			bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26"))
			snap.Peers[0].Annotations = map[string]string{"muslin.io/bfd": "300ms"}
			s.apply(desired(t, snap))
			bgptest.Eventually(t, "BFD", bgptest.Contains(s.peers, `Established flaps 0`, `bfd "Up"`))
			bgptest.Steady(t, "both stay up", 5*time.Second, bgptest.Contains(s.peers, `Established flaps 0`, `bfd "Up"`))
			b.Unplug()
			bgptest.Eventually(t, "route gone", bgptest.Lacks(s.learned, "10.244.50.0/26")) // the hold time is 90 s, the wait 40
			b.Plug()
			bgptest.Eventually(t, "route back", bgptest.Contains(s.learned, "10.244.50.0/26"))
			bgptest.Eventually(t, "BFD back", bgptest.Contains(s.peers, `Established`, `bfd "Up"`))
			bgptest.Steady(t, "and both stay", 5*time.Second, bgptest.Contains(s.peers, `Established`, `bfd "Up"`))
		})
	}
}

// A session that its router resets comes back and stays. FRR makes its BFD
// session twice then, and whoever has answered the first is deaf to the second.
// Another peer keeps the node's BFD listening all the time. On a busy machine a reset may
// cost the session twice, where FRR's second BFD session comes late.
func TestBFDComesBack(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	router := b.StartFRR(frrOfARange)
	c.StartBIRD("protocol bfd { interface \"e0\" { interval 300 ms; multiplier 3; }; }\n" +
		bgptest.BIRDPeer("node", c.V4, 65002, a.V4, 64512, "bfd on;"))
	watched := func(p *model.BGPPeer) { p.Annotations = map[string]string{"muslin.io/bfd": "300ms"} }
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(withPeer(clusterOf(a), b.V4, 65001, watched), c.V4, 65002, watched)))
	for flaps := range 6 {
		up := func() string {
			for line := range strings.Lines(s.peers()) {
				var lost int
				_, state, _ := strings.Cut(line, "Established flaps ")
				if _, err := fmt.Sscan(state, &lost); err == nil && lost >= flaps && strings.HasPrefix(line, b.V4+" ") && strings.Contains(line, `bfd "Up"`) {
					return ""
				}
			}
			return s.peers()
		}
		bgptest.Eventually(t, "BFD", up)
		bgptest.Steady(t, "both stay up", time.Second, up)
		router.Ask("clear bgp *")
	}
}

// A peer over its limit is closed and nobody else; a higher limit opens it.
func TestPrefixLimit(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	// The route too many comes in a running session, alone: with more of the
	// peer's messages unread, the kernel closes with a reset, and a peer may
	// see that before it has read what it was told.
	bird := b.StartBIRD("protocol static { ipv4; route 10.244.50.0/26 blackhole; route 10.244.51.0/26 blackhole; }\n" +
		"protocol static more { disabled; ipv4; route 10.244.52.0/26 blackhole; }\n" +
		bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	c.StartBIRD("protocol static { ipv4; route 10.244.60.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", c.V4, 65002, a.V4, 64512, ""))
	snap := withPeer(withPeer(clusterOf(a), b.V4, 65001, func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/prefix-limit": "2"}
	}), c.V4, 65002)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "open", bgptest.Contains(s.learned, "10.244.50.0/26", "10.244.51.0/26"))
	bgptest.Steady(t, "at its limit", time.Second, bgptest.Contains(s.learned, "10.244.50.0/26", "10.244.51.0/26"))
	bird.Ask("enable", "more")
	bgptest.Eventually(t, "closed", bgptest.Contains(s.peers, "prefix limit reached"))
	bgptest.Eventually(t, "and told so", bgptest.Contains(bird.Log, "Maximum number of prefixes reached"))
	bgptest.Eventually(t, "the other peer", bgptest.Contains(s.learned, "10.244.60.0/26"))
	bgptest.Eventually(t, "its routes go", bgptest.Lacks(s.learned, "10.244.5"))
	snap.Peers[0].Annotations["muslin.io/prefix-limit"] = "3"
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "open again", bgptest.Contains(s.learned, "10.244.50.0/26", "10.244.52.0/26"))
}

// A drain in two steps: asked to prefer others, then withdrawn with a Cease.
func TestDrain(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	tor := b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	mesh := c.StartBIRD(bgptest.BIRDPeer("node", c.V4, 64512, a.V4, 64512, ""))
	snap := withPeer(withNode(clusterOf(a), "c", c), b.V4, 65001)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "announced", bgptest.Contains(mesh.Routes, own, "local_pref: 2147482623"))
	bgptest.Eventually(t, "announced", bgptest.Contains(tor.Routes, own))
	snap.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "Shutdown"}
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "router asked", bgptest.Contains(tor.Routes, "BGP.community: (65535,0)"))
	bgptest.Eventually(t, "node asked", bgptest.Contains(mesh.Routes, "BGP.community: (65535,0)", "BGP.local_pref: 1\n"))
	snap.Nodes[0].Annotations["muslin.io/drain"] = "Withdrawn"
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "router", bgptest.Lacks(tor.Routes, own))
	bgptest.Eventually(t, "router told", bgptest.Contains(tor.Log, "Peer de-configured"))
	snap.Nodes[0].Annotations = nil
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "and back", bgptest.Contains(tor.Routes, own))
}

// A router in graceful shutdown is the second choice here, too.
func TestGracefulShutdownOfAPeer(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	route := func(attr string) string {
		return "protocol static { ipv4; route 10.244.50.0/26 blackhole" + attr + "; }\n"
	}
	first := b.StartBIRD(route("") + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	c.StartBIRD(route("") + bgptest.BIRDPeer("node", c.V4, 65001, a.V4, 64512, ""))
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(withPeer(clusterOf(a), b.V4, 65001), c.V4, 65001)))
	bgptest.Eventually(t, "both", bgptest.Contains(s.learned, "10.244.50.0/26 via [10.9.0.2 10.9.0.3]"))
	first.Reconfigure(route(" { bgp_community.add((65535,0)); }") + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	bgptest.Eventually(t, "the other", bgptest.Contains(s.learned, "10.244.50.0/26 via [10.9.0.3]"))
}
