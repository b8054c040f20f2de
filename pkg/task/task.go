// Package task owns goroutines. A Task is something that runs until its context
// ends; a Group starts tasks in order, each when the ones before it are ready,
// and ends them all when one fails.
//
// It is for main functions that read straight down. It never restarts a task
// and never swallows an error. Kernel and wire footprint: none.
package task

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
)

// Task is a unit of work with a goroutine of its own.
type Task interface {
	// Run works until ctx ends, and then returns nil. A non-nil error ends the
	// whole group.
	Run(ctx context.Context) error
	// Ready is closed once the task does its job; later tasks wait for it.
	Ready() <-chan struct{}
	// String names the task in logs and errors.
	String() string
}

// Group runs tasks. The zero value is ready to use.
type Group struct {
	Logger *slog.Logger
	tasks  []Task
}

// Add appends a task. The order of adding is the order of starting.
func (g *Group) Add(t ...Task) { g.tasks = append(g.tasks, t...) }

// Run starts every task in order, waits until ctx ends or a task fails, stops
// the tasks in the reverse order of their start, one after the other, and joins
// their errors.
func (g *Group) Run(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	started := make([]*running, 0, len(g.tasks))
	for _, t := range g.tasks {
		r := start(ctx, t, fail)
		started = append(started, r)
		if !r.waitReady(ctx) {
			break
		}
		g.log("task ready", t)
	}
	<-ctx.Done()
	var errs []error
	for i := len(started) - 1; i >= 0; i-- {
		g.log("task stopping", started[i].task)
		errs = append(errs, started[i].stop())
	}
	return errors.Join(errs...)
}

func (g *Group) log(msg string, t Task) {
	if g.Logger != nil {
		g.Logger.Debug(msg, "task", t.String())
	}
}

// running is a task between its start and its end. Its context is not a child
// of the group's, so that the group decides the order of stopping.
type running struct {
	task   Task
	cancel context.CancelFunc
	done   chan struct{}
	err    error
}

func start(ctx context.Context, t Task, fail context.CancelCauseFunc) *running {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &running{task: t, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		if err := t.Run(own); err != nil {
			r.err = fmt.Errorf("%s: %w", t, err)
			fail(r.err)
		}
	}()
	return r
}

func (r *running) waitReady(ctx context.Context) bool {
	select {
	case <-r.task.Ready():
		return true
	case <-r.done:
		return r.err == nil
	case <-ctx.Done():
		return false
	}
}

func (r *running) stop() error {
	r.cancel()
	<-r.done
	return r.err
}

// Func makes a Task of a function that calls ready when it does its job.
func Func(name string, run func(ctx context.Context, ready func()) error) Task {
	return &funcTask{name: name, run: run, ready: make(chan struct{})}
}

type funcTask struct {
	name  string
	run   func(ctx context.Context, ready func()) error
	ready chan struct{}
	once  sync.Once
}

func (f *funcTask) Run(ctx context.Context) error {
	return f.run(ctx, func() { f.once.Do(func() { close(f.ready) }) })
}

func (f *funcTask) Ready() <-chan struct{} { return f.ready }
func (f *funcTask) String() string         { return f.name }
