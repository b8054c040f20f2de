package bgp

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Reasons of ReceivedProblems.
const (
	ReasonPrefixLimitNear = "PrefixLimitNear"
	ReasonForeignBlock    = "ForeignBlock"
	ReasonUnusableNextHop = "UnusableNextHop"
)

// Oddity is something in what a peer announces that deserves a word, with one
// prefix as an example. The zero Origin means a next hop that cannot lead to the
// prefix.
type Oddity struct {
	Peer   netip.Addr
	Origin model.ASN // not of this cluster, of a prefix that is a block or a part of one
	Prefix netip.Prefix
}

// blockRanges are the pools, with the lengths of blocks and what is in them.
// Something shorter is a summary, as routers make them.
func (b *builder) blockRanges() []PrefixRange {
	var out []PrefixRange
	for _, p := range b.snap.Pools {
		if r := Inside(p.CIDR); p.CIDR.IsValid() && p.BlockSize > 0 {
			r.Prefix, r.Min = r.Prefix.Masked(), p.BlockSize
			out = append(out, r)
		}
	}
	return out
}

// origins are the AS numbers from which the cluster's blocks come: the nodes', and
// those of peers, which may speak for nodes (static routes) or are pods.
func (b *builder) origins() []model.ASN {
	var out []model.ASN
	for _, n := range b.snap.Nodes {
		out = append(out, b.asnOf(n))
	}
	for _, o := range b.snap.Peers {
		out = append(out, o.ASN, o.LocalASN)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// ReceivedProblems says what is wrong with what peers announce, though all that can be
// is done with it. peers are the sessions with their counts of prefixes. Messages
// hold no figure that changes with each route.
func ReceivedProblems(cfg Config, peers []model.PeerStatus, odd []Oddity) []model.Problem {
	var out []model.Problem
	for _, st := range peers {
		p, ok := cfg.Peer(st.Address)
		if !ok {
			continue
		}
		for _, f := range p.Families {
			if n := st.Received[f.Lower()]; n > p.PrefixLimit-p.PrefixLimit/4 {
				out = append(out, p.received("metadata.annotations["+AnnotationPrefixLimit+"]", ReasonPrefixLimitNear,
					"%s announces more than three quarters of the %d %s prefixes that it may; with more than all of them its session is closed", p.Address, p.PrefixLimit, f))
			}
		}
	}
	for _, o := range odd {
		p, ok := cfg.Peer(o.Peer)
		switch {
		case !ok:
		case o.Origin == 0:
			out = append(out, p.received("spec.peerIP", ReasonUnusableNextHop,
				"%s announces %s and maybe others by way of an address that cannot lead there, such as an IPv4 one for IPv6; they are not used: "+
					"give the router an IPv6 address on the link, or set %s", p.Address, o.Prefix, AnnotationFamilies))
		default:
			out = append(out, p.received("spec.peerIP", ReasonForeignBlock,
				"%s announces %s and maybe others, which lie in this cluster's pools and come from AS %s, which is none of this cluster's: "+
					"another cluster uses the same pool; give each cluster a pool and an AS number of its own", p.Address, o.Prefix, o.Origin))
		}
	}
	slices.SortFunc(out, compareProblems)
	return out
}

func (p Peer) received(field, reason, format string, args ...any) model.Problem {
	return model.Problem{Object: p.Object, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)}
}
