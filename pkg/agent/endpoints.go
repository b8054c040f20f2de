package agent

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// endpoints is the set of pods attached to this node. CNI puts and deletes, the
// data plane reads the whole set and says which revision is in the kernel.
type endpoints struct {
	mu       sync.Mutex
	byKey    map[endpointKey]model.Endpoint
	rev      uint64          // counts changes of byKey
	settled  [writers]uint64 // the newest revision that each writer has in the kernel
	moved    chan struct{}   // closed and replaced whenever settled grows
	changed  hint            // for the data plane
	toPolice hint            // for network policy
	why      func() string   // what network policy waits for beside the kernel; nil: nothing
	told     func()          // called after every change, before its caller goes on; nil: nobody
}

// writer is what brings endpoints into the kernel.
type writer int

const (
	writerPlane  writer = iota // host routes and rules
	writerPolicy               // network policy
	writers      = iota
)

type endpointKey struct{ container, ifname string }

func newEndpoints(adopted []model.Endpoint) *endpoints {
	e := &endpoints{byKey: map[endpointKey]model.Endpoint{}, moved: make(chan struct{}), changed: newHint(), toPolice: newHint()}
	for _, ep := range adopted {
		e.byKey[endpointKey{ep.ContainerID, ep.Interface}] = ep
	}
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
	e.rev++
	rev := e.rev
	e.mu.Unlock()
	if e.told != nil {
		e.told()
	}
	e.changed.notify()
	e.toPolice.notify()
	return rev
}

// Snapshot returns every endpoint, sorted by host interface, and the revision
// that the slice stands for.
func (e *endpoints) Snapshot() ([]model.Endpoint, uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]model.Endpoint, 0, len(e.byKey))
	for _, ep := range e.byKey {
		out = append(out, ep)
	}
	slices.SortFunc(out, func(a, b model.Endpoint) int { return cmp.Compare(a.HostInterface, b.HostInterface) })
	return out, e.rev
}

// List returns every endpoint.
func (e *endpoints) List() []model.Endpoint {
	out, _ := e.Snapshot()
	return out
}

// settle records that a writer has revision rev in the kernel.
func (e *endpoints) settle(by writer, rev uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if rev <= e.settled[by] {
		return
	}
	e.settled[by] = rev
	close(e.moved)
	e.moved = make(chan struct{})
}

// Settled waits until the kernel has revision rev, routes and policy.
func (e *endpoints) Settled(ctx context.Context, rev uint64) error {
	for {
		e.mu.Lock()
		done, moved := slices.Min(e.settled[:]) >= rev, e.moved
		e.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return e.lacking(ctx.Err(), rev)
		}
	}
}

// lacking says which writer an endpoint waits for.
func (e *endpoints) lacking(err error, rev uint64) error {
	e.mu.Lock()
	plane, policy := e.settled[writerPlane] >= rev, e.settled[writerPolicy] >= rev
	e.mu.Unlock()
	switch {
	case !plane:
		return fmt.Errorf("host routes and rules are not in the kernel yet: %w", err)
	case !policy && e.why != nil && e.why() != "":
		return fmt.Errorf("%s: %w", e.why(), err)
	case !policy:
		return fmt.Errorf("network policy is not in the kernel yet: %w", err)
	}
	return err
}

// hint is a channel that says "look again", at most one at a time.
type hint chan struct{}

func newHint() hint { return make(hint, 1) }

func (h hint) notify() {
	select {
	case h <- struct{}{}:
	default:
	}
}
