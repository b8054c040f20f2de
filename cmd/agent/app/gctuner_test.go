package app

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestReleasable(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		before, now memory
		want        bool
	}{
		"after a burst":            {memory{allocated: 500 * mb}, memory{allocated: 501 * mb, live: 40 * mb, held: 120 * mb}, true},
		"in a burst":               {memory{allocated: 400 * mb}, memory{allocated: 500 * mb, live: 40 * mb, held: 120 * mb}, false},
		"nothing to give":          {memory{allocated: 500 * mb}, memory{allocated: 501 * mb, live: 40 * mb, held: 50 * mb}, false},
		"what a large heap wastes": {memory{allocated: 500 * mb}, memory{allocated: 501 * mb, live: 400 * mb, held: 510 * mb}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := releasable(c.before, c.now); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

// What readMemory says of the real heap is what the decision is about. The
// collector rests meanwhile: it would take the rubbish away by itself.
func TestReadMemory(t *testing.T) {
	const size = 64 << 20
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	debug.FreeOSMemory()
	before := readMemory()
	block := make([]byte, size)
	held := readMemory()
	runtime.KeepAlive(block) // and no longer
	if held.allocated < before.allocated+size || held.held < before.held+size/2 {
		t.Errorf("before %+v, with 64 MiB more %+v", before, held)
	}
	if !releasable(held, held) {
		t.Errorf("64 MiB of rubbish would be kept: %+v", held)
	}
	debug.FreeOSMemory()
	if after := readMemory(); releasable(after, after) {
		t.Errorf("released, and would be again: %+v", after)
	}
}

// A burst of routes has room for its rubbish, and gives it back.
func TestCollectorInABurst(t *testing.T) {
	percent := func() int {
		p := debug.SetGCPercent(100)
		debug.SetGCPercent(p)
		return p
	}
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	var c gcTuner
	for _, step := range []struct {
		what   string
		do     func()
		raised bool
	}{
		{"few routes more", func() { c.learned(burstRoutes - 1) }, false},
		{"many more", func() { c.learned(10000) }, true},
		{"a collection", runtime.GC, true},
		{"a look at it", func() { c.look() }, true},
		{"more of it", func() { c.learned(20000) }, true},
		{"another look", func() { c.look() }, true},
		{"a few more", func() { c.learned(20001) }, true},
		{"a look when it is over", func() { c.look() }, false},
		{"many fewer", func() { c.learned(1) }, true},
		{"a look at that", func() { c.look() }, true},
		{"a look when that is over", func() { c.look() }, false},
		{"a collection after it", runtime.GC, false},
	} {
		step.do()
		if got := percent(); (got > 100) != step.raised {
			t.Errorf("%s: GOGC is %d", step.what, got)
		}
	}
}

func TestRoomPercent(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		live  uint64
		usual int
		want  int
	}{
		{0, 100, 5600}, {8 * mb, 100, 700}, {28 * mb, 100, 200}, {500 * mb, 100, 100}, {64 * mb, 300, 300},
	} {
		if got := roomPercent(c.live, c.usual); got != c.want {
			t.Errorf("with %d bytes alive and a usual %d: %d, want %d", c.live, c.usual, got, c.want)
		}
	}
}
