package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// asksForInterfaces reports whether any filter in force has a rule on an
// interface.
func asksForInterfaces(snap model.Snapshot) bool {
	return slices.ContainsFunc(snap.Peers, func(o model.BGPPeer) bool {
		return slices.ContainsFunc(snap.Filters, func(f model.BGPFilter) bool {
			return slices.Contains(o.Filters, f.Name) &&
				slices.ContainsFunc(slices.Concat(f.ImportV4, f.ImportV6, f.ExportV4, f.ExportV6), namesInterface)
		})
	})
}

func namesInterface(r model.FilterRule) bool { return r.Interface != "" }

// onInterface narrows a rule to routes that leave by an interface that matches
// (BIRD's ifname, as Calico uses it): a learned route by the way to its next
// hop, not by a tunnel that packets may take there; an own path by the pod it
// leads to. Blocks and services lead to no interface.
func (b *builder) onInterface(rule Rule, pattern string, d Direction, p Peer) []Rule {
	if d == Import && linkLocal(p.Address) {
		// whichever of its addresses the router puts there (RFC 2545 section 3)
		if matchesName(pattern, p.Address.Zone()) {
			return []Rule{rule}
		}
		return nil
	}
	var out []Rule
	learned := rule
	if d == Export {
		learned.Match.Source = SourcePeers
	}
	learned.Match.NextHopIn = append(b.fib.behind(pattern), b.linkLocalHops(pattern, d)...)
	if len(learned.Match.NextHopIn) > 0 {
		out = append(out, learned)
	}
	if d == Import || rule.Match.Source == SourcePeers {
		return out
	}
	own := rule
	own.Match.Source, own.Match.NotPrefixes, own.Match.Prefixes = SourceLocal, false, nil
	for _, q := range b.snap.Borrowed {
		name, ok := b.fib.pods[q.Addr()]
		if ok && matchesName(pattern, name) && rule.Match.speaksOf(q) {
			own.Match.Prefixes = append(own.Match.Prefixes, Exactly(q))
		}
	}
	if len(own.Match.Prefixes) > 0 {
		out = append(out, own)
	}
	return out
}

// speaksOf reports whether a match may take in a prefix, whatever its other
// attributes are.
func (m Match) speaksOf(p netip.Prefix) bool {
	return Match{Family: m.Family, Prefixes: m.Prefixes, NotPrefixes: m.NotPrefixes}.matches(Route{Prefix: p})
}

// linkLocalHops are the next hops of what unnumbered peers on interfaces that match
// reported and is exported: known by the peers' addresses alone.
func (b *builder) linkLocalHops(pattern string, d Direction) []netip.Prefix {
	if d == Import {
		return nil
	}
	var out []netip.Prefix
	for _, a := range b.unnumbered {
		if q := host(a.WithZone("")); matchesName(pattern, a.Zone()) && !slices.Contains(out, q) {
			out = append(out, q)
		}
	}
	return out
}

func unnumbered(peers []Peer) []netip.Addr {
	var out []netip.Addr
	for _, p := range peers {
		if linkLocal(p.Address) {
			out = append(out, p.Address)
		}
	}
	return out
}

// findLinks notes on which link each peer outside the cluster is.
func findLinks(w FIB, peers []Peer) {
	for i := range peers {
		if p := &peers[i]; p.Outside() {
			p.Link = w.link(p.Address)
		}
	}
}

// fibToPeers adds the peers that are reached through a gateway (reachableBy).
func fibToPeers(w FIB, peers []Peer) FIB {
	for _, p := range peers {
		if p.ReachableBy.IsValid() {
			w = w.through(p.Address, p.ReachableBy)
		}
	}
	return w
}

// linkLocalNextHop has routes of an unnumbered peer carry its address as next
// hop where they have none: a router without a global address may send "::",
// and its link-local one as a second next hop (RFC 2545 section 3), which
// GoBGP drops.
func linkLocalNextHop(p Peer) []Rule {
	if !linkLocal(p.Address) {
		return nil
	}
	return []Rule{{
		From: "unnumbered peer", Match: Match{NextHopIn: []netip.Prefix{host(netip.IPv6Unspecified())}},
		Action: Continue, Set: Set{NextHop: model.NextHopSelf, NextHopAddr: p.Address.WithZone("")},
	}}
}

// confusable says where two unnumbered peers have the same address, each on its
// own link, and rules have to tell them apart: neither a session nor a next hop
// says on which link it is when a policy sees it.
func (b *builder) confusable(peers []Peer) {
	for i, p := range peers {
		for _, q := range peers[:i] {
			if linkLocal(p.Address) && p.Address.WithZone("") == q.Address.WithZone("") &&
				(b.interfaces || p.Import != q.Import || p.Export != q.Export) {
				b.problem(p.Object, "spec.filters", "SameLinkLocalAddress",
					"%s and %s are one address on two links, which filters cannot tell apart; give one router another link-local address", q.Address, p.Address)
			}
		}
	}
}
