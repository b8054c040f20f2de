package agent

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// endpoints is the set of pods attached to this node. CNI puts and deletes, the
// data plane reads the whole set and says which revision is in the kernel.
type endpoints struct {
	mu      sync.Mutex
	byKey   map[endpointKey]model.Endpoint
	rev     uint64        // counts changes of byKey
	settled uint64        // the newest revision that is in the kernel
	moved   chan struct{} // closed and replaced whenever settled grows
	changed hint
	told    func() // called after every change, before its caller goes on; nil: nobody
}

type endpointKey struct{ container, ifname string }

func newEndpoints(adopted []model.Endpoint) *endpoints {
	e := &endpoints{byKey: map[endpointKey]model.Endpoint{}, moved: make(chan struct{}), changed: newHint()}
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

// settle records that the kernel has revision rev.
func (e *endpoints) settle(rev uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if rev <= e.settled {
		return
	}
	e.settled = rev
	close(e.moved)
	e.moved = make(chan struct{})
}

// Settled waits until the kernel has revision rev.
func (e *endpoints) Settled(ctx context.Context, rev uint64) error {
	for {
		e.mu.Lock()
		done, moved := e.settled >= rev, e.moved
		e.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
