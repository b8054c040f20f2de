package app

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

const (
	// eventsWaiting is how many events are kept while the API server cannot be
	// reached; the oldest go first.
	eventsWaiting = 64
	// sessionInterval is how often sessions are looked at at most.
	sessionInterval = time.Second
)

// tellSessions records an event whenever a session is lost or comes back. The
// first establishment is none: it is what everybody expects.
func (a *agent) tellSessions(ctx context.Context, ready func()) error {
	ready()
	watch := bgp.SessionWatch{}
	var waiting []kube.Event
	task.Loop(ctx, func(ctx context.Context) (next task.Next) {
		get(&a.in.rib, &next.Changed)
		pause(ctx, sessionInterval)
		for _, c := range watch.Changes(a.bgp.sessions(), time.Now()) {
			waiting = append(waiting, a.sessionEvent(c))
		}
		waiting = a.sendEvents(ctx, waiting[max(0, len(waiting)-eventsWaiting):])
		if len(waiting) > 0 {
			next.After = 10 * time.Second
		}
		return next
	})
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// sendEvents records events in order and returns those that could not be.
func (a *agent) sendEvents(ctx context.Context, events []kube.Event) []kube.Event {
	for i, e := range events {
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		err := a.cluster.Record(short, e)
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				a.log.Warn("event not recorded", "object", e.Object.String(), "error", err)
			}
			return events[i:]
		}
	}
	return nil
}

// sessionEvent is told of the BGPPeer, or of this node when the peer is one of
// the mesh.
func (a *agent) sessionEvent(c bgp.SessionChange) kube.Event {
	e := kube.Event{Type: kube.EventNormal, Reason: "BGPSessionEstablished", Object: c.Peer.Object, Message: c.Text(a.cfg.Node)}
	if c.Lost {
		e.Type, e.Reason = kube.EventWarning, "BGPSessionLost"
	}
	if c.Peer.Object.Kind != "BGPPeer" {
		e.Object = model.Ref{Kind: "Node", Name: string(a.cfg.Node)}
		e.UID = e.Object.Name // as the kubelet does
		return e
	}
	for _, r := range a.cluster.Reported() {
		if r.Ref == e.Object {
			e.UID = r.Meta.UID
		}
	}
	return e
}
