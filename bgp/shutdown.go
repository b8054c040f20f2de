package bgp

import (
	"maps"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// ShutdownTime is how long a node whose object is gone asks its peers to prefer
// other ways before it withdraws. The other nodes keep their sessions with it
// for about as long (gobgp's lingering).
const ShutdownTime = 10 * time.Second

// Shutdown drains a node whose object was deleted: asks first, then withdraws.
// What the node was is remembered, since nobody tells any more.
type Shutdown struct {
	last  *model.Node
	since time.Time
}

// Fill puts a node that is gone back into the snapshot, at the step of its
// drain that is due. A positive duration says when the next one is. A node that
// was never seen is not missed.
func (d *Shutdown) Fill(s *model.Snapshot, self model.NodeName, now time.Time) time.Duration {
	if n, ok := s.Node(self); ok {
		d.last, d.since = &n, time.Time{}
		return 0
	}
	if d.last == nil || !s.Synced {
		return 0
	}
	if d.since.IsZero() {
		d.since = now
	}
	n := *d.last
	left := ShutdownTime - now.Sub(d.since)
	step := DrainShutdown
	if left <= 0 {
		step = DrainWithdrawn
	}
	n.Annotations = maps.Clone(n.Annotations)
	if n.Annotations == nil {
		n.Annotations = map[string]string{}
	}
	n.Annotations[AnnotationDrain] = step
	s.Nodes = append(s.Nodes[:len(s.Nodes):len(s.Nodes)], n)
	return max(left, 0)
}
