package validate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Reasons of a pool that overlaps what something else has.
const (
	ReasonOverlapsNode     = "OverlapsNode"         // a node's address or subnet
	ReasonOverlapsServices = "OverlapsServiceRange" // addresses of Services
	ReasonOverlapsPeer     = "OverlapsBGPPeer"      // a router's address
)

// AnnotationInNodeSubnet on an IPPool, with the value "Allow", lets the pool lie
// in a subnet of nodes, for a part of it that nothing else uses. The nodes' own
// addresses stay excluded.
const AnnotationInNodeSubnet = "muslin.io/in-node-subnet"

// InUse is a range of addresses that no pod may have.
type InUse struct {
	CIDR   netip.Prefix
	Object model.Ref
	Field  string // that says so
	Reason string
	subnet bool // around an address of a node
}

// AllInUse gives the ranges that a snapshot knows of, each once: addresses and
// subnets of nodes, ranges of Services and addresses of routers.
func AllInUse(s model.Snapshot) []InUse {
	var out []InUse
	seen := map[netip.Prefix]bool{}
	add := func(u InUse) {
		if u.CIDR.IsValid() && u.CIDR.Bits() > 0 && !seen[u.CIDR] {
			seen[u.CIDR] = true
			out = append(out, u)
		}
	}
	for i := range s.Nodes {
		n := &s.Nodes[i]
		for _, p := range n.Subnets() {
			ref, field := model.Ref{Kind: "Node", Name: string(n.Name)}, "address "+p.String()
			if !p.IsSingleIP() {
				add(InUse{p.Masked(), ref, field, ReasonOverlapsNode, true})
			}
			add(InUse{netip.PrefixFrom(p.Addr(), p.Addr().BitLen()), ref, field, ReasonOverlapsNode, false})
		}
	}
	for _, c := range s.ServiceCIDRs {
		add(InUse{c.CIDR, model.Ref{Kind: "ServiceCIDR", Name: c.Name}, "spec.cidrs", ReasonOverlapsServices, false})
	}
	for i := range s.BGP {
		ref := model.Ref{Kind: "BGPConfiguration", Name: s.BGP[i].Name}
		for _, f := range []struct {
			field string
			cidrs []netip.Prefix
		}{
			{"spec.serviceClusterIPs", s.BGP[i].ServiceClusterIPs},
			{"spec.serviceExternalIPs", s.BGP[i].ServiceExternalIPs},
			{"spec.serviceLoadBalancerIPs", s.BGP[i].ServiceLoadBalancers},
		} {
			for _, c := range f.cidrs {
				add(InUse{c, ref, f.field, ReasonOverlapsServices, false})
			}
		}
	}
	for i := range s.Peers {
		if a := s.Peers[i].PeerIP; a.IsValid() {
			add(InUse{netip.PrefixFrom(a.WithZone(""), a.BitLen()), model.Ref{Kind: "BGPPeer", Name: s.Peers[i].Name}, "spec.peerIP", ReasonOverlapsPeer, false})
		}
	}
	return out
}

// Overlapping gives those of the ranges that a pool overlaps. A pool of which no
// pod gets an address overlaps nothing: its addresses are Services'.
func Overlapping(p model.Pool, all []InUse) []InUse {
	if p.LoadBalancerOnly() {
		return nil
	}
	var out []InUse
	for _, u := range all {
		if u.CIDR.Overlaps(p.CIDR) && !(u.subnet && p.Annotations[AnnotationInNodeSubnet] == "Allow") {
			out = append(out, u)
		}
	}
	return out
}

// Peers gives the addresses of BGP peers among the ranges. A peer may be a pod,
// which asks for its address: nobody else gets it (model.Snapshot.Reserved).
func Peers(overlapping []InUse) []netip.Prefix {
	var out []netip.Prefix
	for _, u := range overlapping {
		if u.Reason == ReasonOverlapsPeer {
			out = append(out, u.CIDR)
		}
	}
	return out
}

// Exclude gives what of a pool may not be assigned at all (model.Pool.Excluded):
// the widest of the ranges that are not Peers, sorted.
func Exclude(overlapping []InUse) []netip.Prefix {
	var all []netip.Prefix
	for _, u := range overlapping {
		if u.Reason != ReasonOverlapsPeer {
			all = append(all, u.CIDR)
		}
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	out := all[:0]
	for _, p := range all {
		// Of two prefixes that overlap one holds the other: the wider comes first.
		if n := len(out); n == 0 || !out[n-1].Overlaps(p) {
			out = append(out, p)
		}
	}
	return out
}

// WhollyExcluded reports whether nothing of the pool is left.
func WhollyExcluded(pool netip.Prefix, excluded []netip.Prefix) bool {
	if !slices.ContainsFunc(excluded, pool.Overlaps) {
		return false
	}
	if slices.ContainsFunc(excluded, func(e netip.Prefix) bool { return e.Bits() <= pool.Bits() && e.Contains(pool.Addr()) }) {
		return true
	}
	low, high := halves(pool)
	return WhollyExcluded(low, excluded) && WhollyExcluded(high, excluded)
}

// halves cuts a prefix of more than one address in two.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	low = netip.PrefixFrom(p.Addr(), p.Bits()+1)
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(b)
	return low, netip.PrefixFrom(addr, p.Bits()+1)
}

// mostNamed bounds how many ranges a message names.
const mostNamed = 5

// hits says what a pool overlaps, the first few by name.
func hits(overlapping []InUse) string {
	var texts []string
	for i, u := range overlapping {
		if i == mostNamed {
			texts = append(texts, fmt.Sprintf("%d more", len(overlapping)-i))
			break
		}
		texts = append(texts, fmt.Sprintf("%s of %s (%s)", u.CIDR, u.Object, u.Field))
	}
	return strings.Join(texts, ", ")
}
