package gobgp

import (
	"sync"
	"time"
)

const (
	// settle is how long no change has to come for a burst to be over.
	settle = time.Millisecond
	// longest is how long a burst without an end keeps what it has brought to
	// itself, unless that is a lot.
	longest = 20 * time.Millisecond
	// A burst is told of in parts of a quarter of all routes, but within these
	// bounds: a part costs a look at every route, and what comes last is all
	// that is still to be written when the burst is over.
	fewest, most = 256, 8192
)

// pace tells of changes to the learned routes: of one that comes alone at once,
// of a burst in parts that are worth their price.
type pace struct {
	tell func()

	mu     sync.Mutex
	timer  *time.Timer
	armed  bool      // the timer runs: a burst, or a change a moment ago
	moved  bool      // something changed since it was set
	untold int       // changes since the last tell
	since  time.Time // when the burst, or its current stretch, began
}

func newPace(tell func()) *pace { return &pace{tell: tell} }

// changed notes a change: pending prefixes have changed since somebody looked,
// out of total.
func (p *pace) changed(pending, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.untold++
	switch {
	case !p.armed:
		p.arm(time.Now())
		p.out()
	case pending >= min(max(total/4, fewest), most):
		p.out()
	}
	p.moved = true
}

// arm starts the timer. The caller holds mu.
func (p *pace) arm(now time.Time) {
	p.armed, p.since = true, now
	if p.timer == nil {
		p.timer = time.AfterFunc(settle, p.look)
		return
	}
	p.timer.Reset(settle)
}

// out tells. The caller holds mu.
func (p *pace) out() {
	p.untold = 0
	p.tell()
}

// look is the timer's.
func (p *pace) look() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.moved && now.Sub(p.since) < longest {
		p.moved = false
		p.timer.Reset(settle)
		return
	}
	if p.untold > 0 {
		p.out()
	}
	if p.armed = p.moved; p.moved {
		p.moved = false
		p.arm(now)
	}
}
