package gobgp

import (
	"sync"
	"time"
)

// A burst is told of in parts, because a part costs a look at every route, of
// about 0.1 µs each, and what is spent on looks the burst itself lacks.
const (
	// fewest and most bound how many changes are a part: a fourth of all routes,
	// but what comes last is all that is still to be written when the burst is over.
	fewest, most = 256, 8192

	// settle is how long no change has to come for a burst to be over. A burst
	// stalls now and then, on a busy machine more often; taking that for its end
	// costs a look. So each stall that was taken for the end doubles the patience
	// with the next, up to mostPatience times settle.
	settle, settleEach = 500 * time.Microsecond, 30 * time.Nanosecond
	mostPatience       = 8
	// apart is how long after the last part a change has to come to be one that
	// comes alone.
	apart, apartEach = 5 * time.Millisecond, time.Microsecond
	// longest is how long a burst without an end keeps what it has brought to
	// itself, unless that is a part.
	longest, longestEach = 20 * time.Millisecond, 4 * time.Microsecond
)

// debouncer tells of changes to the learned routes: of one that comes alone at once,
// of a burst in parts that are worth their price. Times grow with the number of
// routes, "Each" by each of them.
type debouncer struct {
	tell func()

	mu         sync.Mutex
	timer      *time.Timer
	armed      bool      // the timer runs: a burst, or a change a moment ago
	moved      bool      // something changed since it was set
	unreported int       // changes since the last tell
	since      time.Time // when the burst, or its current stretch, began
	reported   time.Time // when told last
	total      int       // routes
	wait       int       // patience
	requested  bool      // reported that a part is pending, and nobody has looked yet
}

func newDebouncer(tell func()) *debouncer { return &debouncer{tell: tell, wait: 1} }

// changed notes a change: pending prefixes have changed since somebody looked,
// out of total.
func (p *debouncer) changed(pending, total int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unreported++
	p.total = total
	if !p.armed {
		now := time.Now()
		if now.Sub(p.reported) >= p.scaled(apart, apartEach) {
			p.wait = 1
			p.out(now)
		} else {
			p.wait = min(2*p.wait, mostPatience)
		}
		p.arm(now)
		return
	}
	p.moved = true
	if !p.requested && pending >= min(max(total/4, fewest), most) {
		p.requested = true
		p.out(time.Now())
	}
}

// checked notes that somebody has looked: nothing is pending any more.
func (p *debouncer) checked() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requested = false
}

func (p *debouncer) scaled(base, each time.Duration) time.Duration {
	return base + time.Duration(p.total)*each
}

// patience is how long to wait for another change.
func (p *debouncer) patience() time.Duration {
	return time.Duration(p.wait) * p.scaled(settle, settleEach)
}

// arm starts the timer. The caller holds mu.
func (p *debouncer) arm(now time.Time) {
	p.armed, p.since = true, now
	d := p.patience()
	if p.timer == nil {
		p.timer = time.AfterFunc(d, p.check)
		return
	}
	p.timer.Reset(d)
}

// out tells. The caller holds mu.
func (p *debouncer) out(now time.Time) {
	p.unreported, p.reported = 0, now
	p.tell()
}

// check is the timer's.
func (p *debouncer) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if p.moved && now.Sub(p.since) < p.scaled(longest, longestEach) {
		p.moved = false
		p.timer.Reset(p.patience())
		return
	}
	if p.unreported > 0 {
		p.out(now)
	}
	if p.armed = p.moved; p.moved {
		p.moved = false
		p.arm(now)
	}
}
