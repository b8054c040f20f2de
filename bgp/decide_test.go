package bgp_test

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// The filters of the golden "filters", asked about single routes.
func TestDecide(t *testing.T) {
	snap := cluster()
	filters(t, &snap)
	c, problems := bgp.Desired(snap, "n1")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	own := bgp.Route{Prefix: prefix("10.244.1.0/26"), NextHop: addr("10.0.1.1"), Local: true, LocalPref: bgp.LocalPref}
	with := func(r bgp.Route, change func(*bgp.Route)) bgp.Route { change(&r); return r }
	for _, tc := range []struct {
		name      string
		direction bgp.Direction
		route     bgp.Route
		action    bgp.Action
		from      string
	}{
		{"own block", bgp.Export, own, bgp.Accept, "filter a exportV4[0]"},
		{"host route in the pool", bgp.Export, with(own, func(r *bgp.Route) { r.Prefix = prefix("10.244.9.9/32") }), bgp.Reject, "filter a exportV4[1]"},
		{"outside the pool", bgp.Export, with(own, func(r *bgp.Route) { r.Prefix = prefix("192.0.2.0/24") }), bgp.Reject, "filter a exportV4[2]"},
		{"learned block", bgp.Export, with(own, func(r *bgp.Route) { r.Prefix, r.Local = prefix("10.244.7.0/26"), false }), bgp.Reject, "filter a exportV4[3]"},
		{"learned, not filtered", bgp.Export, bgp.Route{Prefix: prefix("10.244.3.0/26"), NextHop: addr("10.0.1.2")}, bgp.Reject, "pools, of routers and nodes that have one"},
		{"learned from elsewhere", bgp.Export, bgp.Route{Prefix: prefix("10.244.3.0/26"), NextHop: addr("10.0.9.9"), External: true}, bgp.Reject, "pools, of routers and nodes that have one"},
		{"learned of a pod", bgp.Export, bgp.Route{Prefix: prefix("10.244.3.0/26"), NextHop: addr("10.244.9.9")}, bgp.Accept, "pools, of orphans and pods"},
		{"IPv6", bgp.Export, bgp.Route{Prefix: prefix("fd44::/64"), Local: true}, bgp.Reject, "filter b exportV6[0]"},
		{"martian", bgp.Import, bgp.Route{Prefix: prefix("127.1.0.0/16")}, bgp.Reject, "martians"},
		{"default route", bgp.Import, bgp.Route{Prefix: prefix("0.0.0.0/0")}, bgp.Accept, "default"},
		{"our address", bgp.Import, bgp.Route{Prefix: prefix("10.0.1.1/32")}, bgp.Reject, "node address"},
		{"our subnet", bgp.Import, bgp.Route{Prefix: prefix("10.0.1.0/24")}, bgp.Accept, "default"},
		{"community", bgp.Import, bgp.Route{Prefix: prefix("192.0.2.0/24"), Communities: []string{"65000:1"}}, bgp.Accept, "filter a importV4[1]"},
		{"path", bgp.Import, bgp.Route{Prefix: prefix("192.0.2.0/24"), ASPath: []model.ASN{65001, 65002, 1}}, bgp.Accept, "filter a importV4[2]"},
		{"shorter path", bgp.Import, bgp.Route{Prefix: prefix("192.0.2.0/24"), ASPath: []model.ASN{65001}}, bgp.Accept, "default"},
		{"priority", bgp.Import, bgp.Route{Prefix: prefix("192.0.2.0/24"), LocalPref: 2147483647 - 512}, bgp.Reject, "filter a importV4[3]"},
		{"in shutdown", bgp.Import, bgp.Route{Prefix: prefix("192.0.2.0/24"), LocalPref: 2147483647 - 512, Communities: []string{"65535:0"}}, bgp.Accept, "default"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := c.Peers[0].Import
			if tc.direction == bgp.Export {
				name = c.Peers[0].Export
			}
			p, ok := c.Policy(tc.direction, name)
			if !ok {
				t.Fatalf("no policy %s", name)
			}
			if action, from := p.Decide(tc.route); action != tc.action || from != tc.from {
				t.Errorf("%s by %q, want %s by %q", action, from, tc.action, tc.from)
			}
		})
	}
	if _, ok := c.Policy(bgp.Import, "none"); ok {
		t.Error("found a policy that is not there")
	}
}

// Of a route of which only the prefix is known, a rule that looks at more is neither
// passed over nor taken to match.
func TestDecidePartial(t *testing.T) {
	inside := bgp.Match{Prefixes: []bgp.PrefixRange{bgp.Inside(prefix("10.244.0.0/16"))}}
	rule := func(from string, a bgp.Action, change func(*bgp.Match)) bgp.Rule {
		m := inside
		if change != nil {
			change(&m)
		}
		return bgp.Rule{From: from, Match: m, Action: a}
	}
	further := map[string]func(*bgp.Match){
		"next hop":   func(m *bgp.Match) { m.NextHops = addrs("10.0.1.2") },
		"interface":  func(m *bgp.Match) { m.NextHopIn = []netip.Prefix{prefix("10.0.1.0/24")} },
		"community":  func(m *bgp.Match) { m.Community = "65000:1" },
		"path":       func(m *bgp.Match) { m.ASPathPrefix = []model.ASN{65001} },
		"preference": func(m *bgp.Match) { m.LocalPref = ptr(uint32(7)) },
		"external":   func(m *bgp.Match) { m.Source = bgp.SourceExternal },
	}
	for name, look := range further {
		for _, tc := range []struct {
			rules  []bgp.Rule
			route  bgp.Route
			action bgp.Action
			from   string
		}{
			{[]bgp.Rule{rule("maybe", bgp.Reject, look)}, bgp.Route{Prefix: prefix("10.244.1.0/26")}, bgp.Unknown, "maybe"},
			{[]bgp.Rule{rule("maybe", bgp.Reject, look)}, bgp.Route{Prefix: prefix("192.0.2.0/24")}, bgp.Accept, "default"},
			{[]bgp.Rule{rule("maybe", bgp.Accept, look)}, bgp.Route{Prefix: prefix("10.244.1.0/26")}, bgp.Accept, "default"},
			{[]bgp.Rule{rule("maybe", bgp.Accept, look), rule("sure", bgp.Reject, nil)}, bgp.Route{Prefix: prefix("10.244.1.0/26")}, bgp.Unknown, "maybe"},
			{[]bgp.Rule{rule("sure", bgp.Reject, nil), rule("maybe", bgp.Accept, look)}, bgp.Route{Prefix: prefix("10.244.1.0/26")}, bgp.Reject, "sure"},
			{[]bgp.Rule{rule("maybe", bgp.Continue, look), rule("sure", bgp.Reject, nil)}, bgp.Route{Prefix: prefix("10.244.1.0/26")}, bgp.Reject, "sure"},
		} {
			tc.route.Partial = true
			p := bgp.Policy{Direction: bgp.Import, Rules: tc.rules}
			if action, from := p.Decide(tc.route); action != tc.action || from != tc.from {
				t.Errorf("%s: %v: %s by %q, want %s by %q", name, tc.rules, action, from, tc.action, tc.from)
			}
		}
	}
}
