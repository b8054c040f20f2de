package tunnel

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// filter drops, in the kernel, what we caused ourselves, and neighbours that
// come: there are many, of others.
func filter(port uint32) []unix.SockFilter { return nl.FromOthers(port, unix.RTM_NEWNEIGH) }

// Run listens for changes by others and hints through Changed, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	return r.Follow(ctx, r.events, r.event, r.again, r.tick)
}

// tick has everything read again from time to time, and asks after devices that
// wait to be deleted or for their name.
func (r *Reconciler) tick(ctx context.Context) {
	all := time.NewTicker(r.resync)
	defer all.Stop()
	soon := time.NewTicker(max(min(r.grace, r.overlap)/10, 10*time.Millisecond))
	defer soon.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-all.C:
			r.again()
		case <-soon.C:
			r.mu.Lock()
			wait := r.wait
			r.mu.Unlock()
			if wait {
				r.Notify()
			}
		}
	}
}

func (r *Reconciler) event(m nl.Message) {
	if len(m.Data) < 8 {
		return
	}
	// The index stands in the same place of every kind of message we get.
	index := int(nl.Uint32(m.Data[4:]))
	r.mu.Lock()
	ours := r.ours[index]
	if m.Type == unix.RTM_DELLINK {
		delete(r.ours, index)
	}
	if ours && (m.Type == unix.RTM_DELLINK || m.Type == unix.RTM_DELNEIGH || m.Type == unix.RTM_DELADDR) {
		r.drift++
	}
	r.mu.Unlock()
	if ours {
		r.again()
	}
}
