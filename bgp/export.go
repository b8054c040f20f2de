package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// attachPolicies gives a session its two policies.
func (b *builder) attachPolicies(p *Peer, own []Path) {
	o := b.objectOf(*p)
	p.Import = b.share(*p, o, Import, b.importRules(*p, o))
	p.Export = b.share(*p, o, Export, b.exportRules(*p, o, own))
}

// objectOf finds the BGPPeer behind a session; a mesh session has none.
func (b *builder) objectOf(p Peer) model.BGPPeer {
	if p.Kind != model.PeerMesh {
		for _, o := range b.snap.Peers {
			if o.Name == p.Object.Name {
				return o
			}
		}
	}
	return model.BGPPeer{}
}

// share gives the name of the policy with these rules. Sessions whose rules read
// the same share one: GoBGP walks the rules of all policies for each route. The
// name says what kind of peer it is for and which filters are in it, and a number
// tells apart those that differ in anything else.
func (b *builder) share(p Peer, o model.BGPPeer, d Direction, rules []Rule) string {
	name := "internal"
	if p.External() {
		name = "external"
	}
	if p.LocalASN != b.asn {
		name += "-as" + p.LocalASN.String()
	}
	if slices.ContainsFunc(rules, func(r Rule) bool { return strings.HasPrefix(r.From, fromFilter) }) {
		name += "+filters:" + strings.Join(o.Filters, ",")
	}
	made := Policy{Direction: d, External: p.External(), LocalASN: p.LocalASN, Rules: rules}
	stem, taken := name, 1
	for _, have := range b.policies {
		switch {
		case have.readsAs(made):
			return have.Name
		case have.Direction == d && have.Name == name:
			taken++
			name = stem + "#" + strconv.Itoa(taken)
		}
	}
	made.Name = name
	b.policies = append(b.policies, made)
	return name
}

func (b *builder) policyList() []Policy {
	slices.SortFunc(b.policies, func(x, y Policy) int {
		return cmp.Or(cmp.Compare(x.Direction, y.Direction), cmp.Compare(x.Name, y.Name))
	})
	return b.policies
}

// nextHopMode is that of a session: nextHopMode, else keepOriginalNextHop,
// which acts on eBGP alone.
func nextHopMode(o model.BGPPeer, p Peer) model.NextHopMode {
	switch {
	case o.NextHopMode == model.NextHopSelf, o.NextHopMode == model.NextHopKeep:
		return o.NextHopMode
	case o.KeepOriginalNextHop && p.External():
		return model.NextHopKeep
	}
	return ""
}

// ownRule is where every own path is decided on that no rule before was about.
const ownRule = "own"

// exportRules are in Calico's order: filters, pools that are not exported,
// communities, own blocks, services, pools, nothing else.
func (b *builder) exportRules(p Peer, o model.BGPPeer, own []Path) []Rule {
	out := append(wellKnown(p), b.nextHopRules(p, o)...)
	out = append(out, b.filterRules(p, o, Export)...)
	if r := b.poolRanges(func(q model.Pool) bool { return q.DisableBGPExport }); len(r) > 0 {
		out = append(out, Rule{From: "disableBGPExport", Match: Match{Prefixes: r}, Action: Reject})
	}
	out = append(out, selectedElsewhere(own)...)
	out = append(out, b.advertisements()...)
	out = append(out, Rule{From: ownRule, Match: Match{Source: SourceLocal}, Action: Accept})
	if r := insideOwnBlocks(own); len(r) > 0 {
		out = append(out, Rule{From: "inside own blocks", Match: Match{Prefixes: r}, Action: Reject})
	}
	out = append(out, b.passOnServices(p, o)...)
	return b.drained(p, append(append(out, b.passOn(p, o)...), Rule{From: "default", Action: Reject}))
}

// wellKnown are the communities by which a peer forbids to tell others what it told
// (RFC 1997). They stand before all that adds communities: what this node marks
// itself is for its peers to obey.
func wellKnown(p Peer) []Rule {
	rule := func(name, community string) Rule {
		return Rule{From: name + " (RFC 1997)", Match: Match{Community: community}, Action: Reject}
	}
	out := []Rule{rule("no-advertise", noAdvertise)}
	if p.External() {
		out = append(out, rule("no-export", noExport), rule("no-export-subconfed", noExportSubconfed))
	}
	return out
}

// nextHopRules go first, because they change a route and decide nothing. The next
// hop is the node's address, which own paths carry, unless the session is not from
// that address: then it is the session's (RFC 4271 section 5.1.3), for the router
// may know no way to the other.
func (b *builder) nextHopRules(p Peer, o model.BGPPeer) []Rule {
	mode := nextHopMode(o, p)
	switch {
	case mode == model.NextHopKeep:
		return []Rule{{From: "next hop mode", Action: Continue, Set: Set{NextHop: model.NextHopKeep}}}
	case linkLocal(p.Address):
		return []Rule{{From: "unnumbered peer", Action: Continue, Set: Set{NextHop: model.NextHopSelf}}}
	}
	elsewhere := p.External() && p.Outside() && !p.LocalAddress.IsValid()
	var out []Rule
	for _, f := range p.Families {
		switch {
		case !f.Has(p.Address) && (mode == model.NextHopSelf || p.External()):
			out = append(out, b.otherNextHop(p, f, elsewhere))
		case mode == model.NextHopSelf:
			out = append(out, Rule{From: "next hop mode", Match: Match{Family: f}, Action: Continue, Set: Set{NextHop: model.NextHopSelf}})
		case f.Has(p.Address) && elsewhere:
			out = append(out, Rule{From: "source address", Match: Match{Family: f}, Action: Continue, Set: Set{NextHop: model.NextHopSelf}})
		}
	}
	return out
}

// otherNextHop is the rule of the family that is not the session's. It needs an
// address by name: the session has none of that family. On a session from another
// address than the node's it is one of the link on which the router is.
func (b *builder) otherNextHop(p Peer, f model.Family, elsewhere bool) Rule {
	own := b.node.Address(f)
	r := Rule{From: "next hop of the other family", Match: Match{Family: f, Source: SourcePeers}, Action: Continue,
		Set: Set{NextHop: model.NextHopSelf, NextHopAddr: own}}
	has := func(q netip.Prefix) bool { return f.Has(q.Addr()) }
	if i := slices.IndexFunc(p.Link.Nets, has); elsewhere && i >= 0 && !p.Link.Holds(own) {
		r.Match.Source, r.Set.NextHopAddr = "", p.Link.Nets[i].Addr()
	}
	return r
}

// exported pools are passed on from peers to peers; a disabled pool still is.
func exported(p model.Pool) bool { return !p.DisableBGPExport }

func (b *builder) poolRanges(want func(model.Pool) bool) []PrefixRange {
	var out []PrefixRange
	for _, p := range b.snap.Pools {
		if want(p) && p.CIDR.IsValid() {
			out = append(out, Inside(p.CIDR.Masked()))
		}
	}
	return out
}

// insideOwnBlocks matches what others announce out of this node's blocks; it
// is theirs to tell, not ours to pass on.
func insideOwnBlocks(own []Path) []PrefixRange {
	var out []PrefixRange
	for _, p := range own {
		if r, ok := longerThan(p.Prefix); ok && p.Kind == PathBlock {
			out = append(out, r)
		}
	}
	return out
}

// passOn decides on what other nodes and peers told, out of pools.
//
// A mesh node with another AS number hears of a node's blocks from the node itself
// and needs nothing passed on: it would see a block once from its owner and once
// from every other node, with the same AS path length, and spread it over nodes that
// do not own it.
//
// A router outside the cluster is told the prefixes of nodes that have no router of
// their own (orphans), and of pods. With those of others, two racks' routers would
// send packets in circles; with what another router said, the node would be a way
// from one to the other, which no server should be.
func (b *builder) passOn(p Peer, o model.BGPPeer) []Rule {
	pools := b.poolRanges(exported)
	switch {
	case len(pools) == 0:
		return nil
	case p.External() && p.Kind == model.PeerMesh:
		return []Rule{
			{From: "nodes of the mesh", Match: Match{NextHops: b.meshNodes()}, Action: Reject},
			{From: "pools", Match: Match{Prefixes: pools}, Action: Accept},
		}
	case !p.Outside() || p.ReflectorClient || b.reExportAll(o):
		return []Rule{{From: "pools", Match: Match{Prefixes: pools}, Action: Accept}}
	}
	inside, outside := b.orphans()
	for _, r := range pools { // pods, behind whatever node
		inside = append(inside, r.Prefix)
	}
	out := []Rule{{From: "pools, of orphans and pods", Match: Match{Prefixes: pools, Source: SourceInternal, NextHopIn: inside}, Action: Accept}}
	if len(outside) > 0 {
		out = append(out, Rule{From: "pools, of orphans and pods", Match: Match{Prefixes: pools, Source: SourceExternal, NextHopIn: outside}, Action: Accept})
	}
	return append(out, Rule{From: "pools, of routers and nodes that have one", Match: Match{Prefixes: pools}, Action: Reject})
}

// orphans are the addresses of the nodes that no BGPPeer gives a router, and of
// this node's pods that speak BGP: those that this node hears over iBGP, and those
// over eBGP.
func (b *builder) orphans() (inside, outside []netip.Prefix) {
	of := func(same bool) []netip.Prefix {
		var out []netip.Prefix
		for _, a := range b.addresses(func(n model.Node) bool { return !b.external[n.Name] && (b.asnOf(n) == b.asn) == same }) {
			out = append(out, host(a))
		}
		return out
	}
	inside, outside = of(true), of(false)
	for _, a := range b.pods {
		outside = append(outside, host(a))
	}
	return inside, outside
}

// passOnServices: a reflector passes service addresses of the nodes on, so that its
// clients and the world beyond it reach them.
func (b *builder) passOnServices(p Peer, o model.BGPPeer) []Rule {
	m, reflects := b.nodesServices(p, o)
	for _, q := range append(slices.Clone(b.defaults.ServiceLoadBalancers), b.defaults.ServiceExternalIPs...) {
		m.Prefixes = append(m.Prefixes, Inside(q.Masked()))
	}
	if !reflects || len(m.Prefixes) == 0 {
		return nil
	}
	return []Rule{{From: "services, as reflector", Match: m, Action: Accept}}
}

// nodesServices matches the service addresses of other nodes that a reflector passes
// on to a peer; false: it passes none on.
func (b *builder) nodesServices(p Peer, o model.BGPPeer) (m Match, reflects bool) {
	if !isReflector(b.node) {
		return m, false
	}
	if p.Outside() && !p.ReflectorClient && !b.reExportAll(o) {
		m.NextHops = b.addresses(func(model.Node) bool { return true })
	}
	return m, true
}

// meshNodes are the addresses of the other nodes of the mesh, which each session
// of it asks for.
func (b *builder) meshNodes() []netip.Addr {
	if b.inMesh == nil {
		b.inMesh = b.addresses(func(n model.Node) bool { return !isReflector(n) })
	}
	return b.inMesh
}

// addresses are those of the other nodes that want picks, sorted.
func (b *builder) addresses(want func(model.Node) bool) []netip.Addr {
	var out []netip.Addr
	for _, n := range b.snap.Nodes {
		if n.Name == b.node.Name || !want(n) {
			continue
		}
		for _, p := range n.Subnets() {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// nodesWithExternalPeers finds the nodes that some BGPPeer gives a peer that is
// no node.
func (b *builder) nodesWithExternalPeers() map[model.NodeName]bool {
	isNode := map[netip.Addr]bool{}
	for _, n := range b.snap.Nodes {
		isNode[n.IPv4.Addr()], isNode[n.IPv6.Addr()] = true, true
	}
	out := map[model.NodeName]bool{}
	for _, o := range b.snap.Peers {
		if o.PeerSelector != nil || !o.PeerIP.IsValid() || isNode[o.PeerIP.Unmap()] {
			continue
		}
		for _, n := range b.snap.Nodes {
			if applies(o, n) {
				out[n.Name] = true
			}
		}
	}
	return out
}
