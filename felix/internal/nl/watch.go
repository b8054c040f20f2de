package nl

import (
	"context"
	"sync"
	"time"
)

// Watch is what all reconcilers have in common: they follow what the kernel
// tells, look again from time to time for what it did not tell, and hint to
// whoever applies that there is something to do. Reconcilers embed it.
type Watch struct {
	changed chan struct{}
	ready   chan struct{}
	once    sync.Once
}

// NewWatch returns a Watch that is not ready.
func NewWatch() *Watch {
	return &Watch{changed: make(chan struct{}, 1), ready: make(chan struct{})}
}

// Changed hints that the kernel is no longer as it was applied. Hints that
// nobody has taken are one.
func (w *Watch) Changed() <-chan struct{} { return w.changed }

// Ready is closed once the kernel is listened to.
func (w *Watch) Ready() <-chan struct{} { return w.ready }

// Notify asks for the desired state to be applied again.
func (w *Watch) Notify() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}

// Started says that the kernel is listened to.
func (w *Watch) Started() { w.once.Do(func() { close(w.ready) }) }

// Follow hands over what the listener hears until ctx ends, and runs look
// beside it, which ends with ctx. lost is called when messages were lost.
func (w *Watch) Follow(ctx context.Context, l *Listener, each func(Message), lost func(), look func(context.Context)) error {
	w.Started()
	ctx, cancel := context.WithCancel(ctx)
	var looking sync.WaitGroup
	looking.Go(func() { look(ctx) })
	defer looking.Wait()
	defer cancel()
	return l.Follow(ctx, each, lost)
}

// Every calls do at an interval, which is asked for anew each time, until ctx
// ends.
func Every(ctx context.Context, interval func() time.Duration, do func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(interval()):
			do()
		}
	}
}
