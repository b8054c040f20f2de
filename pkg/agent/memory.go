package agent

import (
	"context"
	"runtime/debug"
	stats "runtime/metrics"
	"time"
)

const (
	// memoryLook is how often the agent looks at its own memory.
	memoryLook = 5 * time.Second
	// memorySlack is how much memory without use is left to the process: bytes.
	memorySlack = 16 << 20
	// memoryCalm is how much may be allocated between two looks while the
	// process counts as calm: bytes.
	memoryCalm = 4 << 20
)

// memory is what the runtime says of the heap, in bytes.
type memory struct {
	allocated uint64 // since the start
	used      uint64 // by objects, dead ones that were not collected yet among them
	live      uint64 // marked as alive by the last collection
	held      uint64 // of the kernel, for the heap
}

func readMemory() memory {
	s := []stats.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	stats.Read(s)
	used := s[1].Value.Uint64()
	return memory{
		allocated: s[0].Value.Uint64(), used: used, live: s[2].Value.Uint64(),
		held: used + s[3].Value.Uint64() + s[4].Value.Uint64(),
	}
}

// releasable tells, from two looks, whether it is worth to collect and to give
// memory back: the process was calm in between and holds more than it needs.
func releasable(before, now memory) bool {
	return now.allocated-before.allocated < memoryCalm && now.held > now.live+memorySlack+now.live/4
}

// releaseMemory gives memory back to the kernel when a burst is over. A node's
// agent is idle nearly all the time, and the runtime by itself keeps as much
// again as is in use until the next collection.
func releaseMemory(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	for before := readMemory(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readMemory()
		if releasable(before, now) {
			debug.FreeOSMemory()
			now = readMemory()
		}
		before = now
	}
}
