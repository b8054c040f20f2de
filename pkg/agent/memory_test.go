package agent

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
