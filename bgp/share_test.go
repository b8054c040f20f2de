package bgp_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// annotated sets an annotation of a BGPPeer.
func annotated(key, value string) func(*model.BGPPeer) {
	return func(p *model.BGPPeer) {
		if p.Annotations == nil {
			p.Annotations = map[string]string{}
		}
		p.Annotations[key] = value
	}
}

// peerings are ways to ask for a session, each of which has rules of its own.
var peerings = map[string][]func(*model.BGPPeer){
	"four":        {annotated("muslin.io/families", "ipv4")},
	"six":         {annotated("muslin.io/families", "ipv6")},
	"both":        {annotated("muslin.io/families", "ipv4,ipv6")},
	"six first":   {annotated("muslin.io/families", "ipv6,ipv4")},
	"over six":    {func(p *model.BGPPeer) { p.PeerIP = addr("fd00:1::99") }, annotated("muslin.io/families", "ipv6,ipv4")},
	"link":        {func(p *model.BGPPeer) { p.PeerIP = addr("fe80::1%eth0") }},
	"other link":  {func(p *model.BGPPeer) { p.PeerIP = addr("fe80::2%eth1") }},
	"self":        {func(p *model.BGPPeer) { p.NextHopMode = "Self" }},
	"keep":        {func(p *model.BGPPeer) { p.NextHopMode = "Keep" }},
	"any source":  {func(p *model.BGPPeer) { p.AnySource = true }},
	"all":         {annotated("muslin.io/re-export", "All")},
	"internal":    {func(p *model.BGPPeer) { p.ASN = 64512 }},
	"local as":    {func(p *model.BGPPeer) { p.LocalASN = 65300 }},
	"filtered":    {func(p *model.BGPPeer) { p.Filters = []string{"f"} }},
	"by its twin": {func(p *model.BGPPeer) { p.Filters = []string{"twin"} }},
}

// rulesOf is what a peer's policies read, without their names.
func rulesOf(c bgp.Config, name string) string {
	var w strings.Builder
	for _, p := range c.Peers {
		if p.Object.Name != name {
			continue
		}
		for d, policy := range map[bgp.Direction]string{bgp.Import: p.Import, bgp.Export: p.Export} {
			if q, ok := c.Policy(d, policy); ok {
				fmt.Fprintln(&w, d, q.External, q.LocalASN, q.Rules)
			}
		}
	}
	lines := strings.Split(w.String(), "\n")
	if lines[0] > lines[1] {
		lines[0], lines[1] = lines[1], lines[0]
	}
	return strings.Join(lines, "\n")
}

// What a peer is told and what is taken from it does not depend on who else there
// is: the rules of no peer stand in for those of another.
func TestRulesAreThePeersOwn(t *testing.T) {
	snap := cluster()
	noMesh(&snap)
	snap.Nodes[0] = dual(snap.Nodes[0])
	rule := []model.FilterRule{{CIDR: prefix("10.244.1.0/26"), MatchOperator: "Equal"}}
	snap.Filters = []model.BGPFilter{{Name: "f", ExportV4: rule}, {Name: "twin", ExportV4: rule}}
	object := func(name, address string) model.BGPPeer {
		p := model.BGPPeer{Name: name, PeerIP: addr(address), ASN: 65001}
		for _, f := range peerings[name] {
			f(&p)
		}
		return p
	}
	with := func(list ...model.BGPPeer) bgp.Config {
		s := snap
		s.Peers = list
		c, _ := bgp.Desired(s, "n1")
		return c
	}
	for name := range peerings {
		alone := rulesOf(with(object(name, "10.0.1.253")), name)
		for other := range peerings {
			if other == name {
				continue
			}
			for _, c := range []bgp.Config{
				with(object(name, "10.0.1.253"), object(other, "10.0.1.252")),
				with(object(name, "10.0.1.253"), object(other, "10.0.1.254")),
			} {
				if diff := cmp.Diff(alone, rulesOf(c, name)); diff != "" {
					t.Errorf("%s beside %s: -alone +together:\n%s", name, other, diff)
				}
			}
		}
	}
}

// Sessions whose rules read the same share a policy, so that a mesh has one.
func TestPoliciesAreShared(t *testing.T) {
	snap := cluster()
	for i := 20; i < 40; i++ {
		snap.Nodes = append(snap.Nodes, node(i, 1))
	}
	for _, asn := range []model.ASN{64512, 65200} { // the second has the node in an AS of its own
		snap.Nodes[0].ASN = asn
		c, _ := bgp.Desired(snap, "n1")
		if len(c.Peers) != 22 || len(c.Policies) != 2 {
			t.Errorf("AS %s: %d peers have %d policies, want 22 and 2", asn, len(c.Peers), len(c.Policies))
		}
	}
}
