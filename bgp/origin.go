package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// AnnotationOriginCheck on the BGPConfiguration "default" says what becomes of
// a learned pod prefix whose origin IPAM does not confirm: "Off" (default),
// "Warn" or "Enforce".
const AnnotationOriginCheck = "muslin.io/origin-check"

// OriginMode is a value of AnnotationOriginCheck.
type OriginMode string

// The modes of the origin check.
const (
	OriginOff     OriginMode = "Off"
	OriginWarn    OriginMode = "Warn"
	OriginEnforce OriginMode = "Enforce"
)

// Reasons of a Refusal.
const (
	ReasonNoBlock    = "NoBlock"    // no IPAM block is the prefix, or holds it as a host route or its owner's
	ReasonWrongOwner = "WrongOwner" // the next hop is a node, and not the block's
	ReasonNotBehind  = "NotBehind"  // the next hop is a router, and the block's node is on this node's own subnet
)

// Refusal is a next hop of a learned prefix that IPAM does not confirm.
type Refusal struct {
	Prefix        netip.Prefix
	NextHop, From netip.Addr
	Reason        string
}

// OriginCheck is IPAM's view of who may announce what: what a route origin
// authorisation is to the Internet.
type OriginCheck struct {
	Mode   OriginMode
	pools  []netip.Prefix
	manual []netip.Prefix // pools whose addresses are given by hand
	blocks map[netip.Prefix]model.NodeName
	lent   map[netip.Addr]model.NodeName // addresses out of others' blocks → who has them
	// lentKnown: a host route that is not in lent is nobody's but the block's owner's.
	lentKnown bool
	starts    []netip.Addr // of blocks, sorted
	bits      []int        // lengths of blocks, longest first
	nodes     map[netip.Addr]model.NodeName
	near      map[neighbour]bool
}

// NewOriginCheck prepares the check of a node from all blocks of the cluster;
// the snapshot has to hold other nodes' blocks too.
func NewOriginCheck(snap model.Snapshot, self model.NodeName) OriginCheck {
	c := OriginCheck{
		Mode: OriginOff, blocks: map[netip.Prefix]model.NodeName{}, lent: map[netip.Addr]model.NodeName{}, nodes: map[netip.Addr]model.NodeName{},
		near: neighbours(snap.Nodes, self),
	}
	for _, g := range snap.BGP {
		if m := OriginMode(g.Annotations[AnnotationOriginCheck]); g.Name == "default" && (m == OriginWarn || m == OriginEnforce) {
			c.Mode = m
		}
	}
	c.lentKnown = snap.LentKnown
	for _, l := range snap.Lent {
		c.lent[l.Addr] = l.Node
	}
	for _, p := range snap.Pools {
		c.pools = append(c.pools, p.CIDR.Masked())
		if p.Manual {
			c.manual = append(c.manual, p.CIDR.Masked())
		}
	}
	for _, b := range snap.Blocks {
		c.blocks[b.CIDR.Masked()] = b.Node
		c.starts = append(c.starts, b.CIDR.Masked().Addr())
		if !slices.Contains(c.bits, b.CIDR.Bits()) {
			c.bits = append(c.bits, b.CIDR.Bits())
		}
	}
	slices.SortFunc(c.starts, netip.Addr.Compare)
	slices.SortFunc(c.bits, func(x, y int) int { return y - x })
	for _, n := range snap.Nodes {
		for _, p := range n.Subnets() {
			c.nodes[p.Addr()] = n.Name
		}
	}
	return c
}

// neighbour is a node that is on this node's own subnet of a family, so that no
// router is before it.
type neighbour struct {
	node   model.NodeName
	family model.Family
}

func neighbours(nodes []model.Node, self model.NodeName) map[neighbour]bool {
	i := slices.IndexFunc(nodes, func(n model.Node) bool { return n.Name == self })
	if i < 0 {
		return nil
	}
	out := map[neighbour]bool{}
	for _, n := range nodes {
		if n.Name == self {
			continue
		}
		for _, f := range model.Families {
			out[neighbour{n.Name, f}] = nodes[i].Subnet(f).Contains(n.Address(f))
		}
	}
	return out
}

// Apply divides learned routes. Prefixes outside all pools are not its
// business, and neither are aggregates of several blocks. A next hop that is
// no node is a router, behind which the owner may well be, unless the owner is
// on this node's own subnet: there a router that does not change the next hop
// names the owner (RFC 4271 section 5.1.3), and one that does is a detour. keep reports
// prefixes that pass in any case: those that are installed already, while the
// API cannot be reached and a block may be newer than what is known of it; nil
// keeps none.
//
// In mode Warn all routes are kept and the refusals only told.
func (c OriginCheck) Apply(learned []model.Learned, keep func(netip.Prefix) bool) ([]model.Learned, []Refusal) {
	if c.Mode == OriginOff {
		return learned, nil
	}
	var refused []Refusal
	var kept []model.Learned // once it differs from learned
	for i, l := range learned {
		bad := c.refuse(l)
		if len(bad) == 0 || keep != nil && keep(l.Prefix) {
			if len(refused) > 0 {
				kept = append(kept, l)
			}
			continue
		}
		if len(refused) == 0 {
			kept = append(make([]model.Learned, 0, len(learned)), learned[:i]...)
		}
		refused = append(refused, bad...)
		if l = without(l, bad); len(l.NextHops) > 0 {
			kept = append(kept, l)
		}
	}
	if c.Mode == OriginWarn || len(refused) == 0 {
		return learned, refused
	}
	return kept, refused
}

// refuse lists what is wrong with a route.
func (c OriginCheck) refuse(l model.Learned) []Refusal {
	if !insideAny(c.pools, l.Prefix) {
		return nil
	}
	block, owner, known := c.blockOf(l.Prefix)
	if !known && c.coversBlocks(l.Prefix) {
		return nil
	}
	whole, borrowed := block == l.Prefix, false
	if l.Prefix.IsSingleIP() && !whole {
		user, lent := c.lent[l.Prefix.Addr()]
		switch {
		case lent:
			owner, whole = user, true
		case insideAny(c.manual, l.Prefix):
			return nil // a floating address, or one that a pod asked for without IPAM
		case known && !c.lentKnown:
			borrowed = true // maybe
		}
	}
	var out []Refusal
	for i, nh := range l.NextHops {
		node, isNode := c.nodes[nh]
		switch {
		case !known, !isNode && !borrowed && !whole: // no node announces a part of a block
			out = append(out, Refusal{l.Prefix, nh, l.From[i], ReasonNoBlock})
		case isNode && node != owner && !borrowed:
			out = append(out, Refusal{l.Prefix, nh, l.From[i], ReasonWrongOwner})
		case !isNode && !borrowed && !nh.IsLinkLocalUnicast() && c.near[neighbour{owner, model.FamilyOf(nh)}]:
			out = append(out, Refusal{l.Prefix, nh, l.From[i], ReasonNotBehind})
		}
	}
	return out
}

// blockOf finds the block that is p or holds it.
func (c OriginCheck) blockOf(p netip.Prefix) (netip.Prefix, model.NodeName, bool) {
	for _, bits := range c.bits {
		if bits > p.Bits() {
			continue
		}
		q, err := p.Addr().Prefix(bits)
		if err != nil {
			continue
		}
		if owner, ok := c.blocks[q]; ok {
			return q, owner, true
		}
	}
	return netip.Prefix{}, "", false
}

// coversBlocks is asked only of prefixes that lie in no block.
func (c OriginCheck) coversBlocks(p netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(c.starts, p.Addr(), netip.Addr.Compare)
	return i < len(c.starts) && p.Contains(c.starts[i])
}

func without(l model.Learned, bad []Refusal) model.Learned {
	out := model.Learned{Prefix: l.Prefix, Multipath: &model.Multipath{Mesh: l.Mesh, Stale: l.Stale}}
	for i, nh := range l.NextHops {
		if !slices.ContainsFunc(bad, func(r Refusal) bool { return r.NextHop == nh }) {
			out.NextHops, out.From = append(out.NextHops, nh), append(out.From, l.From[i])
		}
	}
	return out
}
