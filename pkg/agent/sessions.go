package agent

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

const (
	// A peer's changes are told up to eventBurst at once, and one every
	// eventRefill from then on: a flapping session must not fill etcd.
	eventBurst  = 4
	eventRefill = time.Minute
	// eventsWaiting is how many events are kept while the API server cannot be
	// reached; the oldest go first.
	eventsWaiting = 64
	// sessionPace is how often sessions are looked at at most.
	sessionPace = time.Second
)

// tellSessions records an event whenever a session is lost or comes back. The
// first establishment is none: it is what everybody expects.
func (a *agent) tellSessions(ctx context.Context, ready func()) error {
	ready()
	watch := sessionWatch{}
	var waiting []kube.Event
	task.Loop(ctx, func(ctx context.Context) (next task.Next) {
		_, changed := a.in.rib.Get()
		next.Changed = []<-chan struct{}{changed}
		pause(ctx, sessionPace)
		for _, c := range watch.changes(a.speech.sessions(), time.Now()) {
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
func (a *agent) sessionEvent(c sessionChange) kube.Event {
	e := kube.Event{Type: kube.EventNormal, Reason: "BGPSessionEstablished", Object: c.peer.Object, Message: c.text(a.cfg.Node)}
	if c.lost {
		e.Type, e.Reason = kube.EventWarning, "BGPSessionLost"
	}
	if c.peer.Object.Kind != "BGPPeer" {
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

// sessionChange is a session that was lost, or is back.
type sessionChange struct {
	peer   model.PeerStatus
	lost   bool
	untold int // changes of this peer before, for which there was no event
}

func (c sessionChange) text(node model.NodeName) string {
	text := fmt.Sprintf("session of %s with %s (AS %s) is established again", node, c.peer.Address, c.peer.ASN)
	if c.lost {
		text = fmt.Sprintf("session of %s with %s (AS %s) is lost", node, c.peer.Address, c.peer.ASN)
		if c.peer.LastError != "" {
			text += ": " + c.peer.LastError
		}
	}
	if c.untold > 0 {
		text += fmt.Sprintf("; %d changes before it were not told", c.untold)
	}
	return text
}

// sessionWatch remembers every peer's session as it was last looked at.
type sessionWatch map[netip.Addr]*sessionMemory

type sessionMemory struct {
	wasUp  bool // at any time
	up     bool
	flaps  int
	untold int
	tokens int
	refill time.Time
}

// changes compares the sessions with what they were. Peers that are no longer
// configured are forgotten.
func (w sessionWatch) changes(peers []model.PeerStatus, now time.Time) []sessionChange {
	var out []sessionChange
	configured := map[netip.Addr]bool{}
	for _, p := range peers {
		configured[p.Address] = true
		m := w[p.Address]
		if m == nil {
			m = &sessionMemory{tokens: eventBurst, refill: now, flaps: p.Flaps}
			w[p.Address] = m
		}
		out = append(out, m.look(p, now)...)
	}
	for a := range w {
		if !configured[a] {
			delete(w, a)
		}
	}
	return out
}

func (m *sessionMemory) look(p model.PeerStatus, now time.Time) []sessionChange {
	up := p.State == "Established"
	var out []sessionChange
	if m.wasUp {
		switch missed := p.Flaps > m.flaps; {
		case m.up && !up, m.up && missed:
			out = append(out, sessionChange{peer: p, lost: true})
			if up {
				out = append(out, sessionChange{peer: p})
			}
		case !m.up && up:
			out = append(out, sessionChange{peer: p})
		}
	}
	m.wasUp, m.up, m.flaps = m.wasUp || up, up, p.Flaps
	return m.afford(out, now)
}

// afford lets through what the peer's budget allows and counts the rest.
func (m *sessionMemory) afford(changes []sessionChange, now time.Time) []sessionChange {
	if n := int(now.Sub(m.refill) / eventRefill); n > 0 {
		m.tokens, m.refill = min(eventBurst, m.tokens+n), m.refill.Add(time.Duration(n)*eventRefill)
	}
	var out []sessionChange
	for _, c := range changes {
		if m.tokens == 0 {
			m.untold++
			continue
		}
		m.tokens--
		c.untold, m.untold = m.untold, 0
		out = append(out, c)
	}
	return out
}
