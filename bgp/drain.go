package bgp

import (
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// AnnotationDrain on a Node takes the node out of the way of traffic, in two
// steps that are whoever drains it to time: "Shutdown" asks all peers to
// prefer other ways (RFC 8326: community GRACEFUL_SHUTDOWN, the least
// LOCAL_PREF) and announces all that it did; "Withdrawn" withdraws everything
// and closes the sessions with a Cease.
const AnnotationDrain = "muslin.io/drain"

// Values of AnnotationDrain, and of the annotation with which the agent
// confirms a step.
const (
	DrainShutdown  = "Shutdown"
	DrainWithdrawn = "Withdrawn"
)

// gracefulShutdown is the well-known community of RFC 8326.
const gracefulShutdown = "65535:0"

// DrainStep is the step of a drain the node is at: DrainShutdown,
// DrainWithdrawn, or "" while it is not drained. A node that is being deleted
// is shut down gracefully, so that traffic has left when its agent ends.
func DrainStep(n model.Node) string {
	switch v := n.Annotations[AnnotationDrain]; {
	case v == DrainShutdown || v == DrainWithdrawn:
		return v
	case n.Deleting:
		return DrainShutdown
	}
	return ""
}

// drain is DrainStep of this node.
func (b *builder) drain() string {
	if v := b.node.Annotations[AnnotationDrain]; v != "" && v != DrainShutdown && v != DrainWithdrawn {
		b.badAnnotation(model.Ref{Kind: "Node", Name: string(b.node.Name)}, AnnotationDrain, v, "want Shutdown or Withdrawn")
	}
	return DrainStep(b.node)
}

// cordonedLast reports whether the service addresses of this node are the last resort
// because it is cordoned.
func (b *builder) cordonedLast() bool {
	v, _ := b.word(model.Ref{Kind: "BGPConfiguration", Name: "default"}, b.defaults.Annotations, AnnotationCordoned, "Announce", "LastResort")
	return v == "LastResort" && b.node.Unschedulable
}

// drained marks what a session announces while the node is shut down: all that
// brings traffic to this node. That is everything the node puts its own address
// into as next hop; what it reflects to iBGP peers leads past it and stays as it
// is.
//
// The marks are set where a route is accepted, so that no filter sees another
// route than usual. The node's own table has none of them: there an own path
// must stay better than what others announce for the same prefix (a service
// address), or it would be withdrawn where it is to be marked.
func (b *builder) drained(p Peer, rules []Rule) []Rule {
	if b.drain() != DrainShutdown {
		return rules
	}
	toUs := p.External() || slices.ContainsFunc(rules, func(r Rule) bool { return r.Set.NextHop == model.NextHopSelf })
	out := make([]Rule, 0, len(rules)+1)
	gone := false // every own path has met its rule
	for _, r := range rules {
		switch {
		case r.Action != Accept || !toUs && (gone || r.Match.Source != "" && r.Match.Source != SourceLocal):
			out = append(out, r)
		case toUs || r.Match.Source == SourceLocal:
			out = append(out, lastResort(r, p))
		default:
			own := r
			own.Match.Source = SourceLocal
			out = append(out, lastResort(own, p), r)
		}
		gone = gone || r.From == ownRule
	}
	return out
}

// lastResort adds the marks of RFC 8326 to a rule. LOCAL_PREF stays inside the
// AS; the community asks outside.
func lastResort(r Rule, p Peer) Rule {
	r.From += ", drained"
	r.Set.Communities = append(slices.Clone(r.Set.Communities), gracefulShutdown)
	if !p.External() {
		var least uint32
		r.Set.LocalPref = &least
	}
	return r
}

// shunRule makes what a peer is about to stop carrying the last resort
// (RFC 8326 section 4: the receiver lowers LOCAL_PREF).
func shunRule() Rule {
	var last uint32
	return Rule{From: "graceful shutdown", Match: Match{Community: gracefulShutdown}, Action: Continue, Set: Set{LocalPref: &last}}
}
