package task

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// journal records what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, s)
}

func (j *journal) task(name string, readyAfter time.Duration) Task {
	return Func(name, func(ctx context.Context, ready func()) error {
		j.add("start " + name)
		time.Sleep(readyAfter)
		ready()
		<-ctx.Done()
		j.add("stop " + name)
		return nil
	})
}

func TestGroupStartsInOrderAndStopsInReverse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		g.Add(j.task("links", time.Second), j.task("speaker", time.Second), j.task("socket", 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		want := []string{"start links", "start speaker", "start socket", "stop socket", "stop speaker", "stop links"}
		if !slices.Equal(j.lines, want) {
			t.Fatalf("got %q, want %q", j.lines, want)
		}
	})
}

func TestGroupEndsWhenATaskFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		boom := errors.New("no such device")
		var g Group
		g.Add(j.task("links", 0), Func("routes", func(_ context.Context, ready func()) error {
			ready()
			time.Sleep(time.Second)
			return boom
		}))
		err := g.Run(t.Context())
		if !errors.Is(err, boom) || err.Error() != "routes: no such device" {
			t.Fatalf("got %v", err)
		}
		if !slices.Equal(j.lines, []string{"start links", "stop links"}) {
			t.Fatalf("got %q", j.lines)
		}
	})
}

func TestGroupDoesNotStartTheNextBeforeReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		var g Group
		never := Func("never", func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil })
		g.Add(never, j.task("later", 0))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if len(j.lines) != 0 {
			t.Fatalf("got %q, want nothing started", j.lines)
		}
	})
}
