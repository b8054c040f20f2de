package felix

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// routes are, by right of way: the node's pods, tunnels and blocks, then what
// BGP learned, then what is computed from IPAM.
func (c *builder) routes() []Route {
	groups := c.peerRoutes()
	src := c.sources()
	pods := slices.Concat(c.podRoutes(), c.floatingRoutes())
	for i, r := range pods {
		pods[i].NextHopGroup = src.on(r.NextHopGroup, r.Prefix)
	}
	local := slices.Concat(pods, c.tunnelPeerRoutes(), peerRoutes(groups))
	taken := make(map[netip.Prefix]bool, len(local))
	for _, r := range local {
		taken[r.Prefix] = true
	}
	var blocks prefixSet
	hole := &NextHopGroup{Type: Blackhole}
	for i, b := range c.Snapshot.Blocks {
		if b.Node != c.Self || b.State == model.BlockPending {
			continue
		}
		blocks.add(b.CIDR, i)
		// A block of one address is its pod's route (Calico does the same).
		if !b.CIDR.IsSingleIP() && !taken[b.CIDR.Masked()] {
			taken[b.CIDR.Masked()] = true
			local = append(local, Route{Prefix: b.CIDR.Masked(), Metric: DefaultRouteMetric, NextHopGroup: hole})
		}
	}
	slices.SortFunc(local, Route.Compare)
	return c.withLearned(local, &blocks, c.withSpeakers(groups), src)
}

// podRoutes lead to the pods of this node. A pod whose link the kernel does not
// show yet has none.
func (c *builder) podRoutes() []Route {
	var out []Route
	owner := map[netip.Prefix]model.Endpoint{}
	for _, e := range c.Endpoints {
		l, ok := c.names[e.HostInterface]
		if !ok || !l.AdminUp {
			continue
		}
		hops := []NextHop{{Link: l.Index, Device: l.Name}}
		for _, a := range e.Addresses {
			p := hostPrefix(a)
			if o, dup := owner[p]; dup {
				c.problem(model.Ref{Kind: "Pod", Namespace: e.Namespace, Name: e.Pod}, "status.podIP", "AddressInUse",
					"address "+a.String()+" is also the address of pod "+o.Namespace+"/"+o.Pod+", which keeps it")
				continue
			}
			owner[p] = e
			out = append(out, Route{Prefix: p, Metric: DefaultRouteMetric, NextHopGroup: &NextHopGroup{LinkScope: a.Is4(), NextHops: hops}})
		}
	}
	return out
}

// tunnelPeerRoutes lead to the other ends of the IPv6 tunnel. The kernel takes
// an IPv6 gateway for on-link only if no other route leads to it another way,
// and the route it is wanted for may do just that: a tunnel's address lies in
// its node's block.
func (c *builder) tunnelPeerRoutes() []Route {
	l, ok := c.tunnelLink(VXLANDeviceV6)
	if !ok || !l.AdminUp {
		return nil
	}
	group := &NextHopGroup{NextHops: []NextHop{{Link: l.Index, Device: l.Name}}}
	var out []Route
	for _, t := range c.tunnels() {
		if t.Name != VXLANDeviceV6 {
			continue
		}
		for _, p := range t.Peers {
			out = append(out, Route{Prefix: hostPrefix(p.Address), Metric: DefaultRouteMetric, NextHopGroup: group})
		}
	}
	return out
}

// withLearned merges the sorted local routes with what BGP chose and, for what it
// has no way to, with what IPAM says, less what would take the ground from under
// the node. It makes one pass and one
// allocation, since there may be many thousands.
func (c *builder) withLearned(local []Route, blocks *prefixSet, groups map[netip.Addr][]NextHop, src *sources) []Route {
	learned := c.Learned
	if !slices.IsSortedFunc(learned, compareLearned) {
		learned = slices.Clone(learned)
		slices.SortStableFunc(learned, compareLearned)
	}
	learned = joined(learned, c.fromIPAM())
	r := newResolver(c, learned)
	r.static = groups
	special := c.special(r, blocks)
	out := make([]Route, 0, len(local)+len(learned))
	var last netip.Prefix
	for i := range learned {
		l := &learned[i]
		if l.Prefix == last {
			continue // BGP has it, and it leads somewhere
		}
		for len(local) > 0 && ComparePrefix(local[0].Prefix, l.Prefix) < 0 {
			out, local = append(out, local[0]), local[1:]
		}
		plain := l.Prefix.IsValid() && !special.touches(l.Prefix) && l.Prefix.Masked() == l.Prefix
		if len(local) > 0 && local[0].Prefix == l.Prefix || !plain && !c.admit(l.Prefix, blocks, r) {
			continue
		}
		group := c.passable(l, r.group(l), r)
		if group == nil {
			continue
		}
		if !plain {
			if why := r.undermines(l.Prefix, group.NextHops); why != "" {
				c.problem(routeRef(l.Prefix), "", "ShadowsConnected", why)
				continue
			}
		}
		out, last = append(out, Route{Prefix: l.Prefix, Metric: DefaultRouteMetric, NextHopGroup: src.on(group, l.Prefix)}), l.Prefix
		if l.IPAM {
			c.byIPAM = append(c.byIPAM, l.Prefix)
		}
	}
	return append(out, local...)
}

// passable leaves IPv4 neighbours out of the way of an IPv6 prefix (as
// ::ffff:10.0.0.2): the kernel has no such routes. It is nil when nothing is left.
// One problem stands for all of a next hop.
func (c *builder) passable(l *model.Learned, group *NextHopGroup, r *resolver) *NextHopGroup {
	isIPv4 := func(h NextHop) bool { return h.Gateway.Is4() }
	if group == nil || l.Prefix.Addr().Is4() || !slices.ContainsFunc(group.NextHops, isIPv4) {
		return group
	}
	for _, h := range group.NextHops {
		if isIPv4(h) && !r.complained[h.Gateway] {
			r.complained[h.Gateway] = true
			c.problem(routeRef(l.Prefix), "nextHop", "NextHopFamily",
				"next hop "+h.Gateway.String()+" is an IPv4 address, by which no IPv6 prefix is reached; it is left out of this route and others: have the router announce its IPv6 address")
		}
	}
	rest := slices.DeleteFunc(slices.Clone(group.NextHops), isIPv4)
	if len(rest) == 0 {
		return nil
	}
	return &NextHopGroup{NextHops: rest}
}

// sweep goes along with a walk over prefixes in ascending order.
type sweep struct{ left []netip.Prefix } // sorted, disjoint

// touches reports whether p overlaps one of the sweep's prefixes. p must not come
// before an earlier one.
func (s *sweep) touches(p netip.Prefix) bool {
	for len(s.left) > 0 {
		q := s.left[0]
		if q.Overlaps(p) {
			return true
		}
		if p.Addr().Less(q.Addr()) {
			return false
		}
		s.left = s.left[1:]
	}
	return false
}

// neverRouted are where admit refuses everything, and what netip takes for it.
var neverRouted = []netip.Prefix{
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::ffff:0:0/96"),
}

// special is where admit and undermines have something to say: what touches none
// of it, as nearly all routes, need not be looked at by either.
func (c *builder) special(r *resolver, blocks *prefixSet) sweep {
	all := slices.Clone(neverRouted)
	for _, set := range []*prefixSet{&r.connected, blocks} {
		for p := range set.table.All() {
			all = append(all, p)
		}
	}
	for a := range c.own {
		if a = a.WithZone(""); a.IsValid() {
			all = append(all, hostPrefix(a))
		}
	}
	return sweep{cover(all)}
}

func compareLearned(a, b model.Learned) int { return ComparePrefix(a.Prefix, b.Prefix) }

func routeRef(p netip.Prefix) model.Ref { return model.Ref{Kind: "Route", Name: p.String()} }

// admit says whether a learned prefix may be in the kernel at all.
func (c *builder) admit(p netip.Prefix, blocks *prefixSet, r *resolver) bool {
	if !p.IsValid() || p != p.Masked() || p.Addr().IsMulticast() || p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() {
		c.problem(routeRef(p), "", "NotRoutable", "the prefix is not one that can be routed; the route is ignored")
		return false
	}
	if net, _, ok := r.connected.covering(p); ok && net == p || p.IsSingleIP() && c.own[p.Addr()] {
		return false // what is on the node's own links is known better here
	}
	if block, _, ok := blocks.covering(p); ok && !p.IsSingleIP() {
		c.problem(routeRef(p), "", "InsideOwnBlock",
			"the prefix lies in block "+block.String()+" of this node; the route is ignored: find out which other node announces it")
		return false
	}
	if p.Bits() == 0 && r.foreign.has(p) {
		c.problem(routeRef(p), "", "ForeignRoute",
			"the node has a default route that is not Muslin's; the learned one is ignored")
		return false
	}
	return true
}
