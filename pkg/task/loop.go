package task

import (
	"context"
	"reflect"
	"time"
)

// Next is what a step of a Loop waits for until it is run again.
type Next struct {
	// After is how long it waits at most; 0: for as long as there is no news.
	After time.Duration
	// Changed bring news, by a value or by being closed. They are those of what
	// the step has read: see Cell.
	Changed []<-chan struct{}
}

// Within gives n with at most d to wait, if d is positive.
func (n Next) Within(d time.Duration) Next {
	if d > 0 && (n.After <= 0 || d < n.After) {
		n.After = d
	}
	return n
}

// Loop runs step, and again whenever there is news or the time that step gave has
// passed, until ctx ends. always are channels that bring news beside those that
// each step names, such as a source's that holds one hint.
//
// News that comes while step runs makes for one more run, however much there is.
// step must look at all that it depends on each time: it is not told what is new.
func Loop(ctx context.Context, step func(context.Context) Next, always ...<-chan struct{}) {
	for ctx.Err() == nil {
		next := step(ctx)
		wait(ctx, next.After, append(always[:len(always):len(always)], next.Changed...))
	}
}

// wait returns when ctx ends, d has passed (0: never) or a channel brings news. It
// takes the news that all of them have by then.
func wait(ctx context.Context, d time.Duration, news []<-chan struct{}) {
	cases := make([]reflect.SelectCase, 0, len(news)+2)
	add := func(c any) {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(c)})
	}
	add(ctx.Done())
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		add(timer.C)
	}
	for _, c := range news {
		add(c)
	}
	reflect.Select(cases)
	for _, c := range news {
		select {
		case <-c:
		default:
		}
	}
}
