package bgp

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// RefusalGrace is how long a refusal has to stand before it counts: the route of
// a new block may be here before the block itself, which comes by another way.
const RefusalGrace = 5 * time.Second

// Refusals are those of an OriginCheck that are in force, and how many counted so
// far. The zero value has none.
type Refusals struct {
	standing map[Refusal]standing
	counts   map[string]uint64 // by reason
}

// standing is a refusal that is in force.
type standing struct {
	since   time.Time
	counted bool
}

// StandingRefusal is a refusal that counts, and since when it is in force.
type StandingRefusal struct {
	Refusal
	Since time.Time
}

// Next gives the refusals when refused are those in force now, and which of those
// before come to count, sorted. Each counts once for as long as it stands.
func (r Refusals) Next(refused []Refusal, now time.Time) (next Refusals, fresh []Refusal) {
	next = Refusals{make(map[Refusal]standing, len(refused)), maps.Clone(r.counts)}
	if next.counts == nil {
		next.counts = map[string]uint64{}
	}
	for f, s := range r.standing {
		if !s.counted && now.Sub(s.since) >= RefusalGrace {
			next.counts[f.Reason]++
			fresh = append(fresh, f)
		}
	}
	for _, f := range refused {
		s, known := r.standing[f]
		if !known {
			s.since = now
		}
		next.standing[f] = standing{s.since, s.counted || now.Sub(s.since) >= RefusalGrace}
	}
	slices.SortFunc(fresh, compareRefusals)
	return next, fresh
}

// Due is how long after now the next refusal comes to count, 0 for never.
func (r Refusals) Due(now time.Time) (d time.Duration) {
	for _, s := range r.standing {
		if left := max(s.since.Add(RefusalGrace).Sub(now), time.Millisecond); !s.counted && (d == 0 || left < d) {
			d = left
		}
	}
	return d
}

// Standing lists the refusals in force that count, sorted.
func (r Refusals) Standing() (out []StandingRefusal) {
	for f, s := range r.standing {
		if s.counted {
			out = append(out, StandingRefusal{f, s.since})
		}
	}
	slices.SortFunc(out, func(a, b StandingRefusal) int { return compareRefusals(a.Refusal, b.Refusal) })
	return out
}

// Total says how many counted so far, by reason; every reason is there.
func (r Refusals) Total() map[string]uint64 {
	out := map[string]uint64{ReasonNoBlock: 0, ReasonWrongOwner: 0, ReasonNotBehind: 0}
	maps.Copy(out, r.counts)
	return out
}

func compareRefusals(a, b Refusal) int {
	return cmp.Or(a.Prefix.Compare(b.Prefix), a.NextHop.Compare(b.NextHop), a.From.Compare(b.From))
}
