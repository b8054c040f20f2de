package app

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// A burst of changes costs one step, however long it lasts one each batchFor; an
// endpoint does not wait for it.
func TestChangesOfPolicyAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		changed, urgent := make(chan struct{}, 1), make(chan struct{})
		took := func() time.Duration {
			start := time.Now()
			batch(t.Context(), batchFor, changed, nil, urgent)
			return time.Since(start)
		}
		go func() {
			for range 100 {
				select {
				case changed <- struct{}{}:
				default:
				}
				time.Sleep(time.Millisecond)
			}
		}()
		if got := took(); got != batchFor {
			t.Errorf("a burst was waited for %s", got)
		}
		time.Sleep(time.Second)
		<-changed // what the burst left
		go func() {
			time.Sleep(time.Millisecond)
			close(urgent)
		}()
		if got := took(); got != time.Millisecond {
			t.Errorf("an endpoint waited for %s", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		batch(ctx, batchFor, changed, urgent, nil)
		batch(t.Context(), -time.Second, changed, nil, nil) // what comes alone does not wait
	})
}
