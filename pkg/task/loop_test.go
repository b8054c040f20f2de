package task

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestLoop: a step runs at once, after the time that it gave, and once for all the
// news that came while it ran, by a value or by a closed channel.
func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var (
			begin  = time.Now()
			hint   = make(chan struct{}, 1)
			cell   Cell[int]
			runs   []time.Duration
			values []int
		)
		done := make(chan struct{})
		go func() {
			defer close(done)
			Loop(ctx, func(context.Context) Next {
				value, changed := cell.Get()
				runs, values = append(runs, time.Since(begin)), append(values, value)
				next := Next{Changed: []<-chan struct{}{changed}}
				switch len(runs) {
				case 1:
					next.After = time.Second
				case 2:
					time.Sleep(time.Second) // at work when the news comes
				}
				return next
			}, hint)
		}()
		time.Sleep(1500 * time.Millisecond) // second step, since 1 s
		hint <- struct{}{}
		cell.Set(1)
		cell.Set(2)
		time.Sleep(1500 * time.Millisecond) // third step at 2 s, for both
		cell.Set(2)                         // no difference
		time.Sleep(time.Second)
		hint <- struct{}{} // fourth, at 4 s
		synctest.Wait()
		cancel()
		<-done
		want := []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second}
		if len(runs) != len(want) {
			t.Fatalf("ran at %v, want %v", runs, want)
		}
		for i, at := range want {
			if runs[i] != at {
				t.Errorf("run %d at %v, want %v", i, runs[i], at)
			}
		}
		if values[2] != 2 || values[3] != 2 {
			t.Errorf("read %v: the third step has to see the newest value", values)
		}
	})
}

// TestLoopEnds: with ctx ended there is no step, whatever waits.
func TestLoopEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	closed := make(chan struct{})
	close(closed)
	runs := 0
	Loop(ctx, func(context.Context) Next {
		if runs++; runs == 3 {
			cancel()
		}
		return Next{}
	}, closed)
	if runs != 3 {
		t.Errorf("%d steps, want 3", runs)
	}
}

// TestCell: a reader hears of a difference, and of nothing else.
func TestCell(t *testing.T) {
	var c Cell[[]int]
	none, changed := c.Get()
	if none != nil {
		t.Errorf("a new cell holds %v", none)
	}
	if !c.Set([]int{1}) || c.Set([]int{1}) {
		t.Error("Set does not tell a difference")
	}
	<-changed
	v, changed := c.Get()
	if len(v) != 1 || v[0] != 1 {
		t.Errorf("got %v", v)
	}
	c.Set([]int{1})
	select {
	case <-changed:
		t.Error("heard of no difference")
	default:
	}
}
