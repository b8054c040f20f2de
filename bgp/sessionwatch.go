package bgp

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// A peer's changes are told up to sessionBurst at once, and one every
	// sessionRefill from then on: a flapping session must not fill etcd.
	sessionBurst  = 4
	sessionRefill = time.Minute
)

// SessionChange is a session that was lost, or is back.
type SessionChange struct {
	Peer       model.PeerStatus
	Lost       bool
	Unreported int // changes of this peer before, for which there was no event
}

// Text says it in a sentence.
func (c SessionChange) Text(node model.NodeName) string {
	text := fmt.Sprintf("session of %s with %s (AS %s) is established again", node, c.Peer.Address, c.Peer.ASN)
	if c.Lost {
		text = fmt.Sprintf("session of %s with %s (AS %s) is lost", node, c.Peer.Address, c.Peer.ASN)
		if c.Peer.LastError != "" {
			text += ": " + c.Peer.LastError
		}
	}
	if c.Unreported > 0 {
		text += fmt.Sprintf("; %d changes before it were not told", c.Unreported)
	}
	return text
}

// SessionWatch remembers every peer's session as it was last looked at.
type SessionWatch map[netip.Addr]*sessionMemory

type sessionMemory struct {
	wasUp      bool // at any time
	up         bool
	flaps      int
	unreported int
	tokens     int
	refill     time.Time
}

// Changes compares the sessions with what they were. Peers that are no longer
// configured are forgotten.
func (w SessionWatch) Changes(peers []model.PeerStatus, now time.Time) []SessionChange {
	var out []SessionChange
	configured := map[netip.Addr]bool{}
	for _, p := range peers {
		configured[p.Address] = true
		m := w[p.Address]
		if m == nil {
			m = &sessionMemory{tokens: sessionBurst, refill: now, flaps: p.Flaps}
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

func (m *sessionMemory) look(p model.PeerStatus, now time.Time) []SessionChange {
	up := p.Up()
	var out []SessionChange
	if m.wasUp {
		switch missed := p.Flaps > m.flaps; {
		case m.up && !up, m.up && missed:
			out = append(out, SessionChange{Peer: p, Lost: true})
			if up {
				out = append(out, SessionChange{Peer: p})
			}
		case !m.up && up:
			out = append(out, SessionChange{Peer: p})
		}
	}
	m.wasUp, m.up, m.flaps = m.wasUp || up, up, p.Flaps
	return m.afford(out, now)
}

// afford lets through what the peer's budget allows and counts the rest.
func (m *sessionMemory) afford(changes []SessionChange, now time.Time) []SessionChange {
	if n := int(now.Sub(m.refill) / sessionRefill); n > 0 {
		m.tokens, m.refill = min(sessionBurst, m.tokens+n), m.refill.Add(time.Duration(n)*sessionRefill)
	}
	var out []SessionChange
	for _, c := range changes {
		if m.tokens == 0 {
			m.unreported++
			continue
		}
		m.tokens--
		c.Unreported, m.unreported = m.unreported, 0
		out = append(out, c)
	}
	return out
}
