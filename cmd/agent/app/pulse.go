package app

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"
)

// hangsAfter is how long one round of a loop may take. Rounds that write
// hundreds of thousands of routes stay well below.
const hangsAfter = 3 * time.Minute

// pulses tell whether the loops that keep kernel and sessions true still turn. A
// loop that waits is well, however long: nothing has happened. Only loops that
// ask nothing of the API server or of a peer count, so that the loss of neither
// has kubelet restart the agent.
type pulses struct {
	log *slog.Logger

	mu        sync.Mutex
	since     map[string]time.Time // loop → when the round began that it is in
	announced bool
}

func newPulses(log *slog.Logger) *pulses { return &pulses{log: log, since: map[string]time.Time{}} }

// begin says that a loop begins a round.
func (p *pulses) begin(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.since[loop] = time.Now()
}

// rest says that a loop waits for something to do.
func (p *pulses) rest(loop string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, loop)
}

// hanging names the loops that do not come back from a round, sorted. The first
// time it logs where every goroutine is: the restart that follows takes the
// evidence away.
func (p *pulses) hanging() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for loop, since := range p.since {
		if d := time.Since(since); d >= hangsAfter {
			out = append(out, fmt.Sprintf("%s: has been at one round for %s", loop, d.Round(time.Second)))
		}
	}
	slices.Sort(out)
	if len(out) > 0 && !p.announced {
		stacks := make([]byte, 1<<20)
		p.log.Error("a loop hangs", "loops", out, "stacks", string(stacks[:runtime.Stack(stacks, true)]))
	}
	p.announced = len(out) > 0
	return out
}
