package app

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// endpoints is the set of pods attached to this node. CNI puts and deletes, the
// data plane reads the whole set and says which revision is in the kernel.
type endpoints struct {
	mu    sync.Mutex // one change at a time
	byKey map[endpointKey]model.Endpoint
	set   task.Cell[podSet]

	settled  task.Cell[[writers]uint64] // the newest revision that each writer has in the kernel
	why      func() string              // what network policy waits for beside the kernel; nil: nothing
	onChange func()                     // called after every change, before its caller goes on; nil: nobody
}

// podSet is the endpoints of a revision, sorted by host interface.
type podSet struct {
	rev  uint64
	list []model.Endpoint
}

// addresses are all that its pods have, floating ones too.
func (s podSet) addresses() (out []netip.Addr) {
	for _, p := range s.list {
		out = append(append(out, p.Addresses...), p.FloatingIPs...)
	}
	return out
}

// writer is what brings endpoints into the kernel.
type writer int

const (
	writerDataplane writer = iota // host routes and rules
	writerPolicy                  // network policy
	writers         = iota
)

type endpointKey struct{ container, ifname string }

func newEndpoints(adopted []model.Endpoint) *endpoints {
	e := &endpoints{byKey: map[endpointKey]model.Endpoint{}}
	for _, ep := range adopted {
		e.byKey[endpointKey{ep.ContainerID, ep.Interface}] = ep
	}
	e.publish(0)
	return e
}

// Put adds or replaces an endpoint and returns the revision to wait for.
func (e *endpoints) Put(ep model.Endpoint) uint64 {
	return e.edit(func() { e.byKey[endpointKey{ep.ContainerID, ep.Interface}] = ep })
}

// Delete forgets an endpoint; deleting the absent is success.
func (e *endpoints) Delete(container, ifname string) uint64 {
	return e.edit(func() { delete(e.byKey, endpointKey{container, ifname}) })
}

func (e *endpoints) edit(f func()) uint64 {
	e.mu.Lock()
	f()
	rev := e.set.Value().rev + 1
	e.publish(rev)
	e.mu.Unlock()
	if e.onChange != nil {
		e.onChange()
	}
	return rev
}

// publish makes byKey the set of a revision. The caller holds mu.
func (e *endpoints) publish(rev uint64) {
	list := slices.SortedFunc(maps.Values(e.byKey), func(a, b model.Endpoint) int { return cmp.Compare(a.HostInterface, b.HostInterface) })
	e.set.Set(podSet{rev, list})
}

// List returns every endpoint. The slice is shared: it must not be changed.
func (e *endpoints) List() []model.Endpoint { return e.set.Value().list }

// settle records that a writer has revision rev in the kernel.
func (e *endpoints) settle(by writer, rev uint64) {
	e.settled.Update(func() [writers]uint64 {
		settled := e.settled.Value()
		settled[by] = max(settled[by], rev)
		return settled
	})
}

// Settled waits until the kernel has revision rev, routes and policy.
func (e *endpoints) Settled(ctx context.Context, rev uint64) error {
	for {
		settled, changed := e.settled.Get()
		if slices.Min(settled[:]) >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return e.lacking(ctx.Err(), rev)
		}
	}
}

// lacking says which writer an endpoint waits for.
func (e *endpoints) lacking(err error, rev uint64) error {
	settled := e.settled.Value()
	policy := settled[writerPolicy] >= rev
	switch {
	case settled[writerDataplane] < rev:
		return fmt.Errorf("host routes and rules are not in the kernel yet: %w", err)
	case !policy && e.why != nil && e.why() != "":
		return fmt.Errorf("%s: %w", e.why(), err)
	case !policy:
		return fmt.Errorf("network policy is not in the kernel yet: %w", err)
	}
	return err
}
