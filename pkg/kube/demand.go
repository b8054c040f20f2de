package kube

import (
	"context"
	"sync"
)

// demand is a group of sources that run only while something asks for them, so
// that a cluster that does not use a feature does not pay for its watches. Its
// fields are guarded by the cluster's mu.
type demand struct {
	c       *Cluster
	needed  func() bool // decides from other tables; called with mu held
	clear   func()      // forgets what the sources filled; called with mu held
	sources []source
	aside   bool // the cluster is ready without them
	on      bool
	wake    chan struct{}
}

func newDemand(c *Cluster, needed func() bool) *demand {
	d := &demand{c: c, needed: needed, wake: make(chan struct{}, 1)}
	c.demands = append(c.demands, d)
	return d
}

// decide looks again whether the sources are needed. The caller holds mu.
func (d *demand) decide() {
	on := d.needed()
	if on == d.on {
		return
	}
	d.on = on
	d.c.snapshot = nil
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// waiting names the sources that are needed and have not listed. The caller
// holds mu.
func (d *demand) waiting() []string {
	if !d.on {
		return nil
	}
	var out []string
	for _, s := range d.sources {
		if !s.synced() {
			out = append(out, s.name)
		}
	}
	return out
}

// known reports whether everything that is asked for has been listed. The
// caller holds mu.
func (d *demand) known() bool { return d.on && len(d.waiting()) == 0 }

// run starts and stops the sources until ctx ends.
func (d *demand) run(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	for running := false; ; {
		d.c.mu.Lock()
		on := d.on
		d.c.mu.Unlock()
		switch {
		case on && !running:
			stop = d.start(ctx)
		case !on && running:
			stop()
			stop = func() {}
			d.c.mu.Lock()
			d.clear()
			d.c.noteChange()
			d.c.mu.Unlock()
		}
		running = on
		select {
		case <-ctx.Done():
			return
		case <-d.wake:
		}
	}
}

// start runs the sources; stop ends them and waits for their end.
func (d *demand) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for _, s := range d.sources {
		wg.Go(func() { s.run(ctx) })
	}
	return func() { cancel(); wg.Wait() }
}
