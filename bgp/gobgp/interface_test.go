package gobgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// routesOver is a kernel that reaches each address over an interface.
func routesOver(t *testing.T, routes ...string) bgp.FIB {
	t.Helper()
	var h model.Host
	for i, r := range routes {
		to, name, ok := strings.Cut(r, " dev ")
		if !ok {
			t.Fatalf("%q is no route", r)
		}
		h.Links = append(h.Links, model.Link{Index: i + 1, Name: name})
		h.Routes = append(h.Routes, model.HostRoute{Prefix: netip.MustParsePrefix(to), LinkIndex: i + 1})
	}
	return bgp.NewFIB(h, []model.Endpoint{{HostInterface: "cali1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.9.9")}}})
}

func desiredOn(t *testing.T, snap model.Snapshot, w bgp.FIB) bgp.Config {
	t.Helper()
	c, problems := bgp.DesiredOn(snap, "a", w)
	if len(problems) > 0 {
		t.Fatalf("problems: %v", problems)
	}
	return c
}

// A filter on interfaces towards and from two routers, one behind each of two
// links; then the kernel's way to the second one changes.
func TestFilterOnInterface(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, near, far := n.Host(1), n.Host(2), n.Host(3)
	bird := func(h *bgptest.Host, as int, block string) *bgptest.BIRD {
		return h.StartBIRD("protocol static { ipv4; route " + block + " blackhole; }\n" + bgptest.BIRDPeer("node", h.V4, as, a.V4, 64512, ""))
	}
	atNear, atFar := bird(near, 65002, "10.244.50.0/26"), bird(far, 65003, "10.244.60.0/26")
	filtered := func(p *model.BGPPeer) { p.Filters = []string{"f"} }
	snap := withPeer(withPeer(clusterOf(a), near.V4, 65002, filtered), far.V4, 65003, filtered)
	snap.Filters = []model.BGPFilter{{
		Name:     "f",
		ImportV4: []model.FilterRule{{Interface: "far*"}},
		ExportV4: []model.FilterRule{{Interface: "cali*"}, {Interface: "near0", Accept: true, Operations: []model.FilterOperation{{AddCommunity: "65000:2"}}}},
	}}
	s := startSpeaker(t, a, "")
	s.apply(desiredOn(t, snap, routesOver(t, "10.9.0.0/24 dev near0", "10.9.0.3/32 dev far0")))
	s.established(near.V4)
	s.established(far.V4)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26"))
	bgptest.Eventually(t, "refused", bgptest.Contains(s.refused, "10.244.60.0/26: filter f importV4[0]"))
	bgptest.Eventually(t, "passed on, marked", bgptest.Contains(func() string { return atFar.Route("10.244.50.0/26") }, "(65000,2)"))
	bgptest.Eventually(t, "own block, not marked", bgptest.Contains(func() string { return atNear.Route(own) }, "BGP.as_path"))
	for _, bad := range []string{
		bgptest.Lacks(s.learned, "10.244.60.0/26")(),
		bgptest.Lacks(func() string { return atNear.Route(own) }, "65000,2")(),
		bgptest.Lacks(atNear.Routes, borrowed)(), // a pod's, by its link
	} {
		if bad != "" {
			t.Error(bad)
		}
	}

	s.apply(desiredOn(t, snap, routesOver(t, "10.9.0.0/24 dev near0")))
	bgptest.Eventually(t, "learned now", bgptest.Contains(s.learned, "10.244.60.0/26"))
	bgptest.Eventually(t, "passed on now", bgptest.Contains(func() string { return atNear.Route("10.244.60.0/26") }, "(65000,2)"))
	s.apply(desiredOn(t, snap, routesOver(t, "10.9.0.0/24 dev far1", "10.9.0.3/32 dev near0")))
	bgptest.Eventually(t, "the other way round", func() string {
		if bad := bgptest.Lacks(s.learned, "10.244.50.0/26")(); bad != "" {
			return bad
		}
		return bgptest.Contains(s.learned, "10.244.60.0/26")()
	})
	for _, p := range s.state().Peers {
		if p.Flaps != 0 {
			t.Errorf("a change of ways reset a session: %s", s.peers())
		}
	}
}

// The routes of an unnumbered router are those of its link, on the way in and
// when they are passed on.
func TestFilterOnInterfaceUnnumbered(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	router := func(h *bgptest.Host, as int, block string) *bgptest.BIRD {
		h.Run("ip addr flush dev e0 scope global") // next hops are link-local ones then
		return h.StartBIRD(fmt.Sprintf(`protocol static { ipv4; route %s blackhole; }
protocol bgp node { local %s as %d; neighbor %s%%e0 as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { extended next hop on; import all; export all; }; ipv6 { import all; export all; }; }
`, block, linkLocalOf(h), as, linkLocalOf(a)))
	}
	atB, atC := router(b, 65001, "10.244.50.0/26"), router(c, 65002, "10.244.60.0/26")
	filtered := func(p *model.BGPPeer) { p.Name, p.Filters = "router-"+p.ASN.String(), []string{"f"} }
	snap := withPeer(withPeer(clusterOf(a), linkLocalOf(b)+"%e0", 65001, filtered), linkLocalOf(c)+"%e0", 65002, filtered)
	mark := model.FilterRule{Accept: true, Operations: []model.FilterOperation{{AddCommunity: "65000:2"}}}
	rules := func(import4, export4 string) {
		mark.Interface = export4
		snap.Filters = []model.BGPFilter{{Name: "f", ImportV4: []model.FilterRule{{Interface: import4}}, ExportV4: []model.FilterRule{mark}}}
	}
	s := startSpeaker(t, a, "")
	rules("e1", "e0")
	s.apply(desiredOn(t, snap, bgp.FIB{}))
	s.established(linkLocalOf(b) + "%e0")
	s.established(linkLocalOf(c) + "%e0")
	bgptest.Eventually(t, "learned", bgptest.Contains(
		s.learned, "10.244.50.0/26 via ["+linkLocalOf(b)+"%e0]", "10.244.60.0/26 via ["+linkLocalOf(c)+"%e0]"))
	bgptest.Eventually(t, "passed on, marked", bgptest.Contains(func() string { return atC.Route("10.244.50.0/26") }, "(65000,2)"))
	bgptest.Eventually(t, "passed on, marked", bgptest.Contains(func() string { return atB.Route("10.244.60.0/26") }, "(65000,2)"))
	bgptest.Eventually(t, "own block", bgptest.Contains(atB.Routes, own))
	if bad := bgptest.Lacks(func() string { return atB.Route(own) }, "65000,2")(); bad != "" {
		t.Error(bad)
	}
	rules("e*", "e1")
	s.apply(desiredOn(t, snap, bgp.FIB{}))
	bgptest.Eventually(t, "refused", bgptest.Contains(s.refused, "10.244.50.0/26: filter f importV4[0]", "10.244.60.0/26: filter f importV4[0]"))
	bgptest.Eventually(t, "no longer learned", bgptest.Lacks(s.learned, "10.244.50.0/26", "10.244.60.0/26"))
}

func linkLocalOf(h *bgptest.Host) string {
	return strings.TrimSpace(h.Run(`ip -6 -o addr show dev e0 scope link | sed "s|.*inet6 \([^/]*\)/.*|\1|"`))
}
