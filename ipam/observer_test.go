package ipam

import (
	"encoding/json"
	"net/netip"
	"testing"
	"time"
)

// read gives a block as another process reads it.
func read(t *testing.T, b *Block) *Block {
	t.Helper()
	text, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	out := new(Block)
	if err := json.Unmarshal(text, out); err != nil {
		t.Fatal(err)
	}
	return out
}

// The clock of who releases an address differs by an hour from that of who gives it
// out again: the cooldown is neither shorter nor longer by that.
func TestCooldownBetweenClocks(t *testing.T) {
	const cooldown = 10 * time.Minute
	for name, ahead := range map[string]time.Duration{"equal": 0, "an hour ahead": time.Hour, "an hour behind": -time.Hour, "a year ahead": 8760 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			now := time.Now() // of who observes
			b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/31"), HostAffinity("n1"), now.Add(ahead))
			if err != nil {
				t.Fatal(err)
			}
			b.Assign(2, Attribute{Handle: "a"}, nil)
			if _, err := b.Release([]Release{{Addr: netip.MustParseAddr("10.0.0.0")}}, now.Add(ahead), cooldown); err != nil {
				t.Fatal(err)
			}
			var w Observer
			for _, step := range []struct {
				after time.Duration
				over  bool
			}{{0, false}, {time.Minute, false}, {9 * time.Minute, false}, {11 * time.Minute, true}, {61 * time.Minute, true}} {
				seen := read(t, b) // anew each time, as from a server
				w.Observe(seen, now.Add(step.after))
				if room := seen.Room(now.Add(step.after), cooldown, nil); (room == 1) != step.over {
					t.Errorf("%s after the release was seen: room for %d", step.after, room)
				}
				if got := seen.Collect(now.Add(step.after), cooldown); got != step.over {
					t.Errorf("%s after the release was seen: collected %t", step.after, got)
				}
			}
		})
	}
}

// The same second may be the time of two releases of one address: on a clock that was
// put back, or on two.
func TestCooldownOfAnotherRelease(t *testing.T) {
	const cooldown = 10 * time.Minute
	now := time.Now()
	released, own := now.Add(time.Hour), netip.MustParseAddr("10.0.0.0")
	b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/32"), HostAffinity("n1"), now)
	if err != nil {
		t.Fatal(err)
	}
	var w Observer
	for _, at := range []time.Time{now, now.Add(9 * time.Minute)} {
		b.Bump()
		if err := b.AssignAddr(own, Attribute{Handle: "a"}); err != nil {
			t.Fatal(err)
		}
		w.Note(b, at)
		b.ReleaseHandle("a", released, cooldown)
		b = read(t, b)
		w.Observe(b, at)
	}
	if b.Collect(now.Add(11*time.Minute), cooldown) {
		t.Error("the second release is taken for the first")
	}
	if !b.Collect(now.Add(20*time.Minute), cooldown) {
		t.Error("not collected")
	}
}

// Who releases an address knows when; what it wrote and reads again is no later release.
func TestOwnReleaseIsRemembered(t *testing.T) {
	now := time.Now()
	b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/32"), HostAffinity("n1"), now)
	if err != nil {
		t.Fatal(err)
	}
	b.Assign(1, Attribute{Handle: "a"}, nil)
	b.ReleaseHandle("a", now, time.Minute)
	var w Observer
	w.Note(b, now.Add(time.Second))
	again := read(t, b)
	w.Observe(again, now.Add(time.Hour))
	if !again.Collect(now.Add(62*time.Second), time.Minute) {
		t.Error("the cooldown begins when the block is read")
	}
	late := read(t, b)
	w.Observe(late, now.Add(4*time.Hour))
	w.Observe(late, now.Add(4*time.Hour))
	if n := len(w.blocks); n != 1 {
		t.Errorf("%d blocks are remembered", n)
	}
}

// A block is taken for being empty once it has been claimed for a minute, by the clock of
// who claimed it or as seen by who takes it.
func TestVacantBetweenClocks(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"equal": 0, "an hour ahead": time.Hour, "an hour behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			now := time.Now()
			b, err := NewBlock(netip.MustParsePrefix("10.0.0.0/30"), HostAffinity("n1"), now.Add(ahead))
			if err != nil {
				t.Fatal(err)
			}
			var w Observer
			first, later := read(t, b), read(t, b)
			w.Observe(first, now)
			w.Observe(later, now.Add(2*time.Minute))
			if first.Vacant(now) != (ahead < 0) || !later.Vacant(now.Add(2*time.Minute)) {
				t.Errorf("vacant at first: %t, two minutes later: %t", first.Vacant(now), later.Vacant(now.Add(2*time.Minute)))
			}
			b.SetAffinity(HostAffinity("n2"), now.Add(ahead+3*time.Minute))
			again := read(t, b)
			w.Observe(again, now.Add(3*time.Minute))
			if ahead >= 0 && again.Vacant(now.Add(3*time.Minute)) {
				t.Error("another claim is taken for the first")
			}
		})
	}
}
