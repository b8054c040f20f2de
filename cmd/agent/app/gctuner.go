package app

import (
	"context"
	"runtime"
	"runtime/debug"
	stats "runtime/metrics"
	"sync"
	"time"
)

const (
	// memoryCheck is how often the agent looks at its own memory.
	memoryCheck = 5 * time.Second
	// memorySlack is how much memory without use is left to the process: bytes.
	memorySlack = 16 << 20
	// memoryCalm is how much may be allocated between two looks while the
	// process counts as calm: bytes.
	memoryCalm = 4 << 20
	// burstRoom is how much may be allocated between two collections in a burst:
	// bytes. What is alive afterwards lies scattered over all that was in use: the
	// more room, the more memory the process keeps when the burst is over.
	burstRoom = 56 << 20
	// burstRoutes is how many routes more or fewer make a burst.
	burstRoutes = 256
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

// calm tells, from two looks, whether little happened in between.
func calm(before, now memory) bool { return now.allocated-before.allocated < memoryCalm }

// releasable tells, from two looks, whether it is worth to collect and to give
// memory back: the process was calm in between and holds more than it needs.
func releasable(before, now memory) bool {
	return calm(before, now) && now.held > now.live+memorySlack+now.live/4
}

// gcTuner decides how often rubbish is collected. Beside a heap of a few
// megabytes a burst of routes would have it collected for every few megabytes
// more, at a fifth of the CPU time that the burst takes and while the CPU is what
// it lacks.
type gcTuner struct {
	mu     sync.Mutex
	usual  int // GOGC outside bursts
	burst  bool
	moved  bool // there was a burst, or more of it, since the last look
	routes int  // when last told of
}

// learned notes how many routes there are. Many more or fewer than last time are
// the begin of a burst; it ends with the first look that has seen no more of it.
func (c *gcTuner) learned(routes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	moved := max(routes-c.routes, c.routes-routes)
	if c.routes = routes; moved < burstRoutes {
		return
	}
	if c.moved = true; c.burst {
		return
	}
	c.burst, c.usual = true, debug.SetGCPercent(-1)
	c.makeRoom()
	c.again()
}

// again has makeRoom called after each collection, until the burst is over.
func (c *gcTuner) again() {
	runtime.AddCleanup(new([16]byte), func(c *gcTuner) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.burst {
			c.makeRoom()
			c.again()
		}
	}, c)
}

// makeRoom sets when to collect next. The caller holds mu.
func (c *gcTuner) makeRoom() {
	if c.usual >= 0 {
		debug.SetGCPercent(roomPercent(readMemory().live, c.usual))
	}
}

// roomPercent is the GOGC that leaves a heap with so much alive the room of a
// burst, and never less than usual.
func roomPercent(live uint64, usual int) int {
	return max(usual, int(burstRoom*100/max(live, 1<<20)))
}

// look ends a burst that goes on no more, and reports whether there was one.
func (c *gcTuner) look() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	moved := c.moved
	c.moved = false
	if !c.burst || moved {
		return false
	}
	c.burst = false
	debug.SetGCPercent(c.usual)
	return true
}

// release gives memory back to the kernel when a burst is over. A node's agent is
// idle nearly all the time, and the runtime by itself keeps as much again as is in
// use until the next collection.
func (c *gcTuner) release(ctx context.Context, ready func()) error {
	ready()
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	for before := readMemory(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := readMemory()
		if over := c.look(); over || releasable(before, now) {
			debug.FreeOSMemory()
			now = readMemory()
		}
		before = now
	}
}
