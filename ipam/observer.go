package ipam

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// forgetAfter is how long an Observer remembers a block that it was not shown again.
const forgetAfter = 2 * time.Hour

// Observer is since when its process has seen addresses cool down, and blocks be
// claimed. What a block says of these times is by the clock of whoever wrote it,
// which may be an hour ahead of this one, or behind, or have been put right since:
// so no wait is measured by it. A release that is seen later than it happened makes
// the wait longer by that, and by no more than the wait itself when a process is
// new; never shorter. Leases of Kubernetes are waited for in the same way.
//
// The zero value is ready. It is safe for concurrent use.
type Observer struct {
	mu     sync.Mutex
	blocks map[netip.Prefix]observed
	swept  time.Time
}

// observed is what is remembered of a block.
type observed struct {
	claim   claim
	claimed time.Time
	rests   map[int]rest // by ordinal; nil: none cools down
	last    time.Time    // when it was seen
}

// claim tells a claim of a block from one before.
type claim struct {
	affinity string
	at       int64 // Unix time, seconds
}

// rest tells the release of an address from one before: the address had been assigned
// at seq.
type rest struct {
	seq   uint64
	at    int64 // Unix time, seconds
	since time.Time
}

// Observe fills in since when what a block that was just read says has been so. now
// has a monotonic reading.
func (w *Observer) Observe(b *Block, now time.Time) {
	have := w.note(b, now)
	b.claimSeen, b.rests = have.claimed, nil
	if have.rests != nil {
		b.rests = make(map[int]time.Time, len(have.rests))
		for o, r := range have.rests {
			b.rests[o] = r.since
		}
	}
}

// Note remembers a block that was just written, and leaves it alone.
func (w *Observer) Note(b *Block, now time.Time) { w.note(b, now) }

func (w *Observer) note(b *Block, now time.Time) observed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocks == nil {
		w.blocks = map[netip.Prefix]observed{}
	}
	if now.Sub(w.swept) > forgetAfter {
		maps.DeleteFunc(w.blocks, func(_ netip.Prefix, o observed) bool { return now.Sub(o.last) > forgetAfter })
		w.swept = now
	}
	have := w.blocks[b.cidr]
	next := observed{claim: claim{b.affinity, b.claimed.Unix()}, claimed: have.claimed, last: now}
	if next.claim != have.claim {
		next.claimed = earliest(b.claimSeen, now)
	}
	for o, s := range b.slots {
		if s == free || b.attrs[s].ReleasedAt.IsZero() {
			continue
		}
		r := rest{b.slotSeq[o], b.attrs[s].ReleasedAt.Unix(), time.Time{}}
		if was := have.rests[o]; was.seq == r.seq && was.at == r.at {
			r.since = was.since
		}
		r.since = earliest(r.since, earliest(b.rests[o], now))
		if next.rests == nil {
			next.rests = map[int]rest{}
		}
		next.rests[o] = r
	}
	w.blocks[b.cidr] = next
	return next
}

// earliest is a time if it is known, else now.
func earliest(t, now time.Time) time.Time {
	if t.IsZero() || now.Before(t) {
		return now
	}
	return t
}
