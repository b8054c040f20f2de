package felix

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// resolver finds the way to next hops: through what is connected, through the
// routes of others, and through learned routes (BGP next hops are recursive,
// RFC 4271 section 5.1.3). Answers are kept, since thousands of prefixes share
// a few next hops.
type resolver struct {
	c            *builder
	learned      []model.Learned // sorted
	lengths      [2][]int        // prefix lengths in learned, longest first, by family
	connected    prefixSet       // prefixes on the node's links
	foreign      prefixSet       // every route of others, index into Host.Routes
	pools        prefixSet       // index into Snapshot.Pools
	encapsulated bool            // some pool asks for a tunnel
	found        map[netip.Addr][]NextHop
	merged       map[string][]NextHop
	gateways     map[netip.Addr]bool
	complained   map[netip.Addr]bool
	groups       map[*model.Multipath]*NextHopGroup // unless what a prefix lies in matters, too
	shared       map[*NextHop]*NextHopGroup         // by the first next hop
	static       map[netip.Addr][]NextHop           // of peers that have a way of their own
	bgp          *prefixSet                         // see heard
}

// depth bounds recursion: a next hop reached by way of a route reached by way
// of a route…
const depth = 8

func newResolver(c *builder, learned []model.Learned) *resolver {
	r := &resolver{
		c: c, learned: learned,
		found: map[netip.Addr][]NextHop{}, merged: map[string][]NextHop{},
		gateways: map[netip.Addr]bool{}, complained: map[netip.Addr]bool{},
		groups: map[*model.Multipath]*NextHopGroup{}, shared: map[*NextHop]*NextHopGroup{},
	}
	for i, h := range c.Host.Routes {
		r.foreign.add(h.Prefix, i)
		if len(h.Gateways) == 0 {
			r.connected.add(h.Prefix, i)
		}
		for _, g := range h.Gateways {
			r.gateways[g] = true
		}
	}
	for i, p := range c.Snapshot.Pools {
		r.pools.add(p.CIDR, i)
		r.encapsulated = r.encapsulated || wants(p.IPIP) || wants(p.VXLAN)
	}
	var seen [2][129]bool
	for i := range learned {
		p := learned[i].Prefix
		if f := famIndex(p.Addr()); p.IsValid() && !seen[f][p.Bits()] {
			seen[f][p.Bits()] = true
			r.lengths[f] = append(r.lengths[f], p.Bits())
		}
	}
	for f := range r.lengths {
		slices.SortFunc(r.lengths[f], func(a, b int) int { return b - a })
	}
	return r
}

func famIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// group is where a learned route leads, nil when nowhere. Routes with the same
// answer share it.
func (r *resolver) group(l *model.Learned) *NextHopGroup {
	if group, ok := r.groups[l.Multipath]; ok {
		return group
	}
	var group *NextHopGroup
	if hops := r.hops(l); len(hops) > 0 {
		if group = r.shared[&hops[0]]; group == nil {
			group = &NextHopGroup{NextHops: hops}
			r.shared[&hops[0]] = group
		}
	}
	if !r.encapsulated {
		r.groups[l.Multipath] = group
	}
	return group
}

// hops resolves every next hop of a learned route and merges what they lead to.
func (r *resolver) hops(l *model.Learned) []NextHop {
	if len(l.NextHops) == 1 {
		return r.one(l, l.NextHops[0])
	}
	var all []NextHop
	id := make([]byte, 0, 64)
	for _, nh := range l.NextHops {
		hops := r.one(l, nh)
		for _, h := range hops {
			id = append(append(id, h.String()...), 0)
		}
		all = append(all, hops...)
	}
	// The same answer is the same slice, by which way knows it.
	if m, ok := r.merged[string(id)]; ok {
		return m
	}
	slices.SortFunc(all, NextHop.Compare)
	m := r.preferUp(slices.Compact(all))
	r.merged[string(id)] = m
	return m
}

// preferUp leaves out next hops over links without carrier, as long as one with
// carrier is left.
func (r *resolver) preferUp(hops []NextHop) []NextHop {
	up := make([]NextHop, 0, len(hops))
	for _, h := range hops {
		if r.c.links[h.Link].Up {
			up = append(up, h)
		}
	}
	if len(up) == 0 {
		return hops
	}
	return up
}

func (r *resolver) one(l *model.Learned, nh netip.Addr) []NextHop {
	if hops := r.tunnelled(l.Prefix, nh); hops != nil {
		return hops
	}
	hops, ok := r.found[nh]
	if !ok {
		hops = r.resolve(nh, depth)
		r.found[nh] = hops
		for _, h := range hops {
			r.gateways[h.Gateway] = true
		}
	}
	if len(hops) == 0 && !r.c.own[nh] {
		if !r.complained[nh] {
			r.complained[nh] = true
			r.c.problem(routeRef(l.Prefix), "nextHop", "NextHopUnreachable",
				"no way to next hop "+nh.String()+"; this route and others by way of it are not in the kernel")
		}
	}
	if l.IPAM && slices.ContainsFunc(hops, func(h NextHop) bool { return h.Gateway != nh }) {
		r.offLink(l, nh)
		return nil
	}
	return hops
}

// resolve answers with the next hops on a link that lead to addr, sorted.
func (r *resolver) resolve(addr netip.Addr, left int) []NextHop {
	if left == 0 || !addr.IsValid() || r.c.own[addr] {
		return nil
	}
	if hops, ok := r.static[addr]; ok {
		return hops
	}
	if zone := addr.Zone(); zone != "" {
		l, ok := r.c.names[zone]
		if !ok || !l.AdminUp {
			return nil
		}
		return []NextHop{{Gateway: addr.WithZone(""), Link: l.Index, Device: l.Name}}
	}
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		return nil // without a zone nobody knows on which link
	}
	p, i, ok := r.foreign.covering(hostPrefix(addr))
	if ok && len(r.c.Host.Routes[i].Gateways) == 0 {
		// On a link, whatever more specific route somebody may announce: it
		// would have to be reached itself.
		return r.overForeign(addr, p)
	}
	via, longer := r.learnedFor(addr, p, ok)
	if longer {
		var out []NextHop
		for _, nh := range via.NextHops {
			out = append(out, r.resolve(nh, left-1)...)
		}
		slices.SortFunc(out, NextHop.Compare)
		return r.preferUp(slices.Compact(out))
	}
	if !ok {
		return nil
	}
	return r.overForeign(addr, p)
}

// overForeign is the way through the routes of others for p: those with the
// lowest metric.
func (r *resolver) overForeign(addr netip.Addr, p netip.Prefix) []NextHop {
	var out []NextHop
	best := -1
	for _, h := range r.c.Host.Routes {
		if h.Prefix != p {
			continue
		}
		if best >= 0 && h.Metric > best {
			break // Host.Routes are sorted by prefix, then by metric
		}
		l := r.c.links[h.LinkIndex]
		if l.Index == 0 {
			continue
		}
		best = h.Metric
		if len(h.Gateways) == 0 {
			out = append(out, NextHop{Gateway: addr, Link: l.Index, Device: l.Name})
		}
		for _, g := range h.Gateways {
			onlink := !g.IsLinkLocalUnicast() && !r.onLink(g, h.LinkIndex)
			out = append(out, NextHop{Gateway: g, Link: l.Index, Device: l.Name, OnLink: onlink})
		}
	}
	slices.SortFunc(out, NextHop.Compare)
	return r.preferUp(slices.Compact(out))
}

// onLink reports whether a connected route leads to g over the link.
func (r *resolver) onLink(g netip.Addr, link int) bool {
	p, _, ok := r.connected.covering(hostPrefix(g))
	if !ok {
		return false
	}
	for _, h := range r.c.Host.Routes {
		if h.Prefix == p && h.LinkIndex == link && len(h.Gateways) == 0 {
			return true
		}
	}
	return false
}

// learnedFor finds the learned route for addr if it is more specific than the
// prefix p that others have (when has is true).
func (r *resolver) learnedFor(addr netip.Addr, p netip.Prefix, has bool) (*model.Learned, bool) {
	for _, bits := range r.lengths[famIndex(addr)] {
		if has && bits <= p.Bits() {
			break
		}
		q, _ := addr.Prefix(bits)
		i, ok := slices.BinarySearchFunc(r.learned, q, func(l model.Learned, q netip.Prefix) int {
			return ComparePrefix(l.Prefix, q)
		})
		if ok {
			return &r.learned[i], true
		}
	}
	return nil, false
}

// undermines says why a route would cut the branch it sits on: it lies inside a
// connected prefix and contains an own address or a gateway.
func (r *resolver) undermines(p netip.Prefix, hops []NextHop) string {
	net, _, ok := r.connected.covering(p)
	if !ok || net.Bits() == 0 {
		return ""
	}
	for a := range r.c.own {
		if p.Contains(a) {
			return "the prefix lies in " + net.String() + " on a link of this node and contains an address of the node; the route is ignored"
		}
	}
	for g := range r.gateways {
		if p.Contains(g) {
			return "the prefix lies in " + net.String() + " on a link of this node and contains a gateway in use; the route is ignored"
		}
	}
	for _, h := range hops {
		if h.Gateway.IsValid() && p.Contains(h.Gateway) {
			return "the prefix contains its own next hop; the route is ignored"
		}
	}
	return ""
}
