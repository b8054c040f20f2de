package bgp

import (
	"net/netip"
	"testing"
	"time"
)

// TestRefusals: a refusal counts once it has stood for a while, and again only
// after it was away.
func TestRefusals(t *testing.T) {
	start := time.Unix(1000, 0)
	bad := Refusal{Prefix: netip.MustParsePrefix("10.244.9.0/26"), NextHop: netip.MustParseAddr("192.0.2.254"), Reason: ReasonNoBlock}
	other := bad
	other.Prefix, other.Reason = netip.MustParsePrefix("10.244.2.0/26"), ReasonWrongOwner
	var r Refusals
	for _, c := range []struct {
		at              time.Duration
		refused         []Refusal
		fresh, standing int
		total           uint64
		due             time.Duration
	}{
		{0, nil, 0, 0, 0, 0},
		{0, []Refusal{bad}, 0, 0, 0, RefusalGrace},
		{RefusalGrace / 2, nil, 0, 0, 0, 0}, // its block was named
		{10 * time.Second, []Refusal{bad, other}, 0, 0, 0, RefusalGrace},
		{11 * time.Second, []Refusal{bad, other}, 0, 0, 0, RefusalGrace - time.Second},
		{10*time.Second + RefusalGrace, []Refusal{bad, other}, 2, 2, 2, 0},
		{time.Hour, []Refusal{other, bad}, 0, 2, 2, 0},
		{time.Hour, []Refusal{bad}, 0, 1, 2, 0},
		{2 * time.Hour, []Refusal{bad, other}, 0, 1, 2, RefusalGrace},
		{3 * time.Hour, nil, 1, 0, 3, 0}, // it stood for long enough, though nobody looked
	} {
		now := start.Add(c.at)
		next, fresh := r.Next(c.refused, now)
		r = next
		total := r.Total()
		if got := total[ReasonNoBlock] + total[ReasonWrongOwner]; len(fresh) != c.fresh || len(r.Standing()) != c.standing || got != c.total || r.Due(now) != c.due {
			t.Errorf("at %s: %d fresh, %d stand, %d in total, next due in %s; want %d, %d, %d, %s", c.at, len(fresh), len(r.Standing()), got, r.Due(now), c.fresh, c.standing, c.total, c.due)
		}
		if len(fresh) == 2 && fresh[0] != other {
			t.Error("not sorted")
		}
		if len(total) != 3 {
			t.Errorf("reasons: %v", total)
		}
	}
}
