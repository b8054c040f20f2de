package bgp

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// importRules: never what no peer can rightly announce, then the filters, then
// everything (Calico: "import all" behind the filters); of a node only what nodes
// announce.
func (b *builder) importRules(p Peer, o model.BGPPeer) []Rule {
	out := append(linkLocalNextHop(p), Rule{From: "next hop of nobody", Match: Match{NextHopIn: nobodys}, Action: Reject})
	out = append(out, Rule{From: "martians", Match: Match{Prefixes: martians()}, Action: Reject})
	out = append(out, Rule{From: "node address", Match: Match{Prefixes: b.nodeAddresses(p)}, Action: Reject}, shunRule())
	out = append(out, b.podRules(p)...)
	rest := []Rule{{From: "default", Action: Accept}}
	if p.InCluster {
		rest = b.nodeRules()
	}
	return append(out, onlyFromItself(p, append(b.filterRules(p, o, Import), rest...))...)
}

// nobodys are addresses that no router on a link has: a router that peers from its
// loopback may name ::1 as the next hop of what it announces over the other family.
var nobodys = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("ff00::/8"),
}

// nodeAddresses are the addresses of nodes that a peer must not announce: this
// node's, and of a node those of all. (A router may well have a host route to a
// node whose address is on its loopback.)
func (b *builder) nodeAddresses(p Peer) []PrefixRange {
	var own []PrefixRange
	for _, p := range b.node.Subnets() {
		own = append(own, Exactly(host(p.Addr())))
	}
	if !p.InCluster {
		return own
	}
	if b.nodeHosts == nil {
		b.nodeHosts = own
		for _, a := range b.addresses(func(model.Node) bool { return true }) {
			b.nodeHosts = append(b.nodeHosts, Exactly(host(a)))
		}
	}
	return b.nodeHosts
}

// nodeRules end the import of a session with a node: what the nodes' own export
// rules let out, and nothing else. A node in wrong hands can then not take the
// traffic for other machines (the API server, a halved default route).
func (b *builder) nodeRules() []Rule {
	if b.nodesTell == nil {
		if reported := b.reportedByNodes(); len(reported) > 0 {
			b.nodesTell = append(b.nodesTell, Rule{From: "what nodes announce", Match: Match{Prefixes: reported}, Action: Accept})
		}
		b.nodesTell = append(b.nodesTell, Rule{From: "not a node's to announce", Action: Reject})
	}
	return b.nodesTell
}

// reportedByNodes are what a node may announce to another: what lies in pools, in
// podCIDRs, in service ranges and in prefixAdvertisements, and what an export filter
// in force accepts by its CIDR. "Everything" is none of them, whoever says it.
func (b *builder) reportedByNodes() []PrefixRange {
	list := b.serviceRanges()
	for _, p := range b.snap.Pools {
		list = append(list, p.CIDR)
	}
	for _, n := range b.snap.Nodes {
		list = append(list, n.PodCIDRs...)
	}
	for _, c := range b.snap.BGP {
		for _, ad := range c.PrefixAdvertisements {
			list = append(list, ad.CIDR)
		}
	}
	var out []PrefixRange
	for _, o := range b.snap.Peers {
		for _, name := range o.Filters {
			inside, exact := exportedBy(b.filters[name])
			list = append(list, inside...)
			for _, p := range exact {
				if r := Exactly(p); !slices.Contains(out, r) {
					out = append(out, r)
				}
			}
		}
	}
	for _, p := range fewest(slices.DeleteFunc(list, func(p netip.Prefix) bool { return p.Bits() < 1 })) {
		out = append(out, Inside(p))
	}
	slices.SortFunc(out, func(x, y PrefixRange) int {
		return cmp.Or(x.Prefix.Compare(y.Prefix), cmp.Compare(x.Max, y.Max))
	})
	return out
}

// exportedBy are the prefixes that a filter's export rules let out by their CIDR.
func exportedBy(f model.BGPFilter) (inside, exact []netip.Prefix) {
	for _, r := range slices.Concat(f.ExportV4, f.ExportV6) {
		switch p := r.CIDR; {
		case !r.Accept || !p.IsValid():
		case r.MatchOperator == model.In:
			inside = append(inside, p)
		case r.MatchOperator == model.Equal:
			exact = append(exact, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
		}
	}
	return inside, exact
}

// martians are ranges that are not routed anywhere: "this network", loopback,
// link-local, multicast and the reserved class E (RFC 6890), and their IPv6
// kin. A default route (length 0) is not among them.
func martians() []PrefixRange {
	var out []PrefixRange
	for _, s := range []string{
		"127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4",
		"::1/128", "fe80::/10", "ff00::/8",
	} {
		out = append(out, Inside(netip.MustParsePrefix(s)))
	}
	zero := netip.MustParsePrefix("0.0.0.0/8")
	return append(out, PrefixRange{zero, 8, 32})
}
