package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// A BGPFilter with a selector of Services is about the addresses of those that it
// selects. Its export rules say what becomes of each at the peers that name the
// filter; a rule that accepts has the address announced to them by itself, or in an
// aggregate of the filter's length, also where everybody else hears of its range.

// selected lists the addresses, and aggregates, that the filters of this node's peers
// ask for beside what services announces: where the Service can be reached over this
// node, or, ending, as long as nobody else has it. Only those peers are told of them.
func (b *builder) selected() (out, ending []netip.Prefix) {
	if b.node.ExcludeFromExternalLB {
		return nil, nil
	}
	for _, f := range b.byService() {
		for _, s := range b.snap.Services {
			if !f.Services.Matches(s.Labels) {
				continue
			}
			here, last := b.localAddresses(s)
			anywhere := b.addressesOf(s, func(h netip.Prefix, e model.Endpoints) bool { return !isLocal(s, h) && (e.Anywhere || e.LastAnywhere) })
			out, ending = append(out, b.accepted(f, append(here, anywhere...))...), append(ending, b.accepted(f, last)...)
		}
	}
	return out, ending
}

// byService are the filters with a selector that a BGPPeer of this node names.
func (b *builder) byService() []model.BGPFilter {
	var out []model.BGPFilter
	for _, f := range b.snap.Filters {
		named := func(o model.BGPPeer) bool { return applies(o, b.node) && slices.Contains(o.Filters, f.Name) }
		if f.Services != nil && slices.ContainsFunc(b.snap.Peers, named) {
			out = append(out, f)
		}
	}
	return out
}

// accepted is what a peer with the filter may hear of some addresses.
func (b *builder) accepted(f model.BGPFilter, hosts []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, h := range hosts {
		if accepts(f, h) {
			out = append(out, b.announcedAs(f, h))
		}
	}
	return out
}

// accepts reports whether the first export rule of a filter that an address matches
// accepts it.
func accepts(f model.BGPFilter, h netip.Prefix) bool {
	family := model.FamilyOf(h.Addr())
	rules := model.OfFamily(family, f.ExportV4, f.ExportV6)
	i := slices.IndexFunc(rules, func(r model.FilterRule) bool {
		m := Match{Family: family}
		return prefixMatch(&m, r, family) == nil && m.matches(Route{Prefix: h, Local: true, Partial: true})
	})
	return i >= 0 && rules[i].Accept
}

// announcedAs is what a peer with the filter hears of an address: it, or the aggregate that
// it lies in. An aggregate never reaches beyond the range that the address is in.
func (b *builder) announcedAs(f model.BGPFilter, h netip.Prefix) netip.Prefix {
	bits := model.OfFamily(model.FamilyOf(h.Addr()), f.AggregationLength, f.AggregationLengthV6)
	if bits == 0 || bits >= h.Bits() {
		return h
	}
	p, d := netip.PrefixFrom(h.Addr(), bits).Masked(), b.defaults
	if insideAny(d.ServiceClusterIPs, p) || insideAny(d.ServiceExternalIPs, p) || insideAny(d.ServiceLoadBalancers, p) {
		return p
	}
	return h
}

// ofServices makes of the rules of a filter with a selector those about the addresses of
// the Services that it selects; where there are none, no rule at all. A reflector also
// accepts what it passes on of other nodes'.
func (b *builder) ofServices(rules []Rule, f model.BGPFilter, p Peer, o model.BGPPeer) []Rule {
	var out []Rule
	for _, r := range rules {
		announced, hidden, ending := b.prefixesOf(r, f)
		if r.Match.NotPrefixes = false; r.Action == Reject {
			out = append(out, onPrefixes(r, hidden)...)
			continue
		}
		r.Match.Source = SourceLocal
		last := r
		last.Set.LocalPref = nil // it has the least
		out = append(append(out, onPrefixes(r, announced)...), onPrefixes(last, ending)...)
		if m, reflects := b.nodesServices(p, o); reflects {
			r.Match.Source, r.Match.NextHops = SourcePeers, m.NextHops
			out = append(out, onPrefixes(r, append(announced, ending...))...)
		}
		out = append(out, onPrefixes(Rule{Match: Match{Family: r.Match.Family}, Action: Reject}, hidden)...)
	}
	return out
}

// prefixesOf divides what a rule is about: what is told of where it accepts, of which
// some is ending, and the addresses that are not told of, or not by themselves.
func (b *builder) prefixesOf(r Rule, f model.BGPFilter) (announced, hidden, ending []PrefixRange) {
	for _, s := range b.snap.Services {
		if !f.Services.Matches(s.Labels) {
			continue
		}
		for _, h := range b.addressesOf(s, func(h netip.Prefix, _ model.Endpoints) bool {
			return r.Match.matches(Route{Prefix: h, Local: true, Partial: true})
		}) {
			t := b.announcedAs(f, h)
			if t != h || r.Action == Reject {
				hidden = append(hidden, Exactly(h))
			}
			if b.ending[t] {
				ending = append(ending, Exactly(t))
			} else {
				announced = append(announced, Exactly(t))
			}
		}
	}
	return announced, hidden, ending
}

// onPrefixes narrows a rule to some prefixes; to none it is no rule.
func onPrefixes(r Rule, ps []PrefixRange) []Rule {
	if len(ps) == 0 {
		return nil
	}
	ps = slices.Clone(ps)
	slices.SortFunc(ps, func(x, y PrefixRange) int { return x.Prefix.Compare(y.Prefix) })
	r.Match.Prefixes = slices.Compact(ps)
	return []Rule{r}
}

// selectedElsewhere are the own paths that only peers with the right filter hear of.
func selectedElsewhere(own []Path) []Rule {
	var ps []PrefixRange
	for _, p := range own {
		if p.Kind == PathSelected {
			ps = append(ps, Exactly(p.Prefix))
		}
	}
	return onPrefixes(Rule{From: "services, by other peers' filters", Match: Match{Source: SourceLocal}, Action: Reject}, ps)
}
