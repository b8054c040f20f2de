package nodeview

import (
	"testing"
	"time"
)

// The clock of a node may be an hour ahead of that of who asks, or behind.
func TestDeniedByAnotherClock(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, ahead := range []time.Duration{0, time.Hour, -time.Hour} {
		there := now.Add(ahead)
		d := Denied{First: there.Add(-2 * time.Minute), Last: there.Add(-time.Minute), Age: time.Minute}
		if got := d.At(now); !got.Last.Equal(now.Add(-time.Minute)) || !got.First.Equal(now.Add(-2*time.Minute)) {
			t.Errorf("a clock %s ahead: %s to %s", ahead, got.First, got.Last)
		}
		if d.Age = 0; d.At(now) != d {
			t.Error("an agent that tells no age has its times changed")
		}
	}
}
