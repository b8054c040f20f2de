package app

import (
	"context"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// host is the kernel's links and others' routes; version is another one for
// another value.
type host struct {
	version uint64
	model.Host
}

// readHost takes in what the kernel has told by now.
func (a *agent) readHost() {
	a.in.host.Update(func() host {
		h, version := a.links.Look()
		return host{version, h}
	})
}

// followHost keeps the host as the kernel tells of it, and ends the connections
// to the API server that a lost address had.
func (a *agent) followHost(ctx context.Context, ready func()) error {
	task.Loop(ctx, func(context.Context) (next task.Next) {
		a.readHost()
		a.apiConns.host(get(&a.in.host, &next.Changed).Host)
		ready()
		return next
	}, a.links.Changed())
	return nil
}
