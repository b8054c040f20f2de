package bgp

import "github.com/muslin-net/muslin/pkg/model"

// AnnotationDrain on a Node takes the node out of the way of traffic, in two
// steps that are whoever drains it to time: "Shutdown" asks all peers to
// prefer other ways (RFC 8326: community GRACEFUL_SHUTDOWN, LOCAL_PREF 0);
// "Withdrawn" withdraws everything and closes the sessions with a Cease.
const AnnotationDrain = "muslin.io/drain"

// gracefulShutdown is the well-known community of RFC 8326.
const gracefulShutdown = "65535:0"

type drainStep int

const (
	drainNone drainStep = iota
	drainShutdown
	drainWithdrawn
)

// drain reads the step the node is at. A node that is being deleted is
// shut down gracefully, so that traffic has left when its agent ends.
func (b *builder) drain() drainStep {
	switch v, ok := b.node.Annotations[AnnotationDrain]; {
	case ok && v == "Withdrawn":
		return drainWithdrawn
	case ok && v == "Shutdown":
		return drainShutdown
	case ok && v != "":
		b.badAnnotation(model.Ref{Kind: "Node", Name: string(b.node.Name)}, AnnotationDrain, v, "want Shutdown or Withdrawn")
	}
	if b.node.Deleting {
		return drainShutdown
	}
	return drainNone
}

// drainRules mark everything that is announced while the node is drained.
func (b *builder) drainRules() []Rule {
	if b.drain() != drainShutdown {
		return nil
	}
	return []Rule{{From: "drain", Action: Continue, Set: Set{Communities: []string{gracefulShutdown}}}}
}

// shunRule makes what a peer is about to stop carrying the last resort
// (RFC 8326 section 4: the receiver lowers LOCAL_PREF).
func shunRule() Rule {
	var last uint32
	return Rule{From: "graceful shutdown", Match: Match{Community: gracefulShutdown}, Action: Continue, Set: Set{LocalPref: &last}}
}
