package ipamtest

import (
	"context"
	"net/netip"
	"sync/atomic"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Faulty puts faults between an allocator and a real store. A crashed Faulty
// has no effect on the store any more.
type Faulty struct {
	store   ipam.Store
	faults  func(call string) Fault
	crashed atomic.Bool
	dead    chan struct{}
}

// NewFaulty wraps a store.
func NewFaulty(store ipam.Store, faults func(call string) Fault) *Faulty {
	return &Faulty{store: store, faults: faults, dead: make(chan struct{})}
}

// Crashed reports whether the client is dead.
func (f *Faulty) Crashed() bool { return f.crashed.Load() }

// before decides on a call; an error means that it is not made.
func (f *Faulty) before(name string, write bool) (Fault, error) {
	if f.Crashed() {
		return Crash, ErrCrashed
	}
	switch fault := f.faults(name); {
	case fault == Refused:
		return fault, ErrRefused
	case fault == Conflict && write:
		return fault, ipam.ErrConflict
	case fault == Crash && f.crashed.CompareAndSwap(false, true):
		close(f.dead)
		return fault, nil // the call is on its way; nobody hears the answer
	default:
		return fault, nil
	}
}

// Blocks gives access to blocks.
func (f *Faulty) Blocks() ipam.Objects[netip.Prefix, *ipam.Block] {
	return faultyObjects[netip.Prefix, *ipam.Block]{f, f.store.Blocks(), "block"}
}

// Affinities gives access to affinities.
func (f *Faulty) Affinities() ipam.Objects[ipam.AffinityKey, ipam.Affinity] {
	return faultyObjects[ipam.AffinityKey, ipam.Affinity]{f, f.store.Affinities(), "affinity"}
}

// Handles gives access to handles.
func (f *Faulty) Handles() ipam.Objects[string, ipam.Handle] {
	return faultyObjects[string, ipam.Handle]{f, f.store.Handles(), "handle"}
}

// BlockCIDRs lists prefixes.
func (f *Faulty) BlockCIDRs(ctx context.Context, within netip.Prefix) ([]netip.Prefix, error) {
	if _, err := f.before("list names", false); err != nil {
		return nil, err
	}
	return f.store.BlockCIDRs(ctx, within)
}

// NamesFrom reads names of blocks.
func (f *Faulty) NamesFrom(ctx context.Context, from string) (names []string, more bool, err error) {
	if _, err := f.before("list names", false); err != nil {
		return nil, false, err
	}
	return f.store.NamesFrom(ctx, from)
}

// EachBlock reads blocks.
func (f *Faulty) EachBlock(ctx context.Context, within netip.Prefix, visit func(*ipam.Block, ipam.Revision) bool) error {
	if _, err := f.before("list block", false); err != nil {
		return err
	}
	return f.store.EachBlock(ctx, within, visit)
}

// BlocksOf lists blocks by their affinity.
func (f *Faulty) BlocksOf(ctx context.Context, affinity string) ([]*ipam.Block, error) {
	if _, err := f.before("list block", false); err != nil {
		return nil, err
	}
	return f.store.BlocksOf(ctx, affinity)
}

// WatchOwn watches until ctx ends or the client crashes.
func (f *Faulty) WatchOwn(ctx context.Context, node model.NodeName, w ipam.Watcher) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-f.dead:
			cancel()
		case <-ctx.Done():
		}
	}()
	return f.store.WatchOwn(ctx, node, w)
}

type faultyObjects[K comparable, T any] struct {
	f    *Faulty
	in   ipam.Objects[K, T]
	kind string
}

func (o faultyObjects[K, T]) Get(ctx context.Context, key K) (value T, rev ipam.Revision, err error) {
	fault, err := o.f.before("get "+o.kind, false)
	if err != nil {
		return value, rev, err
	}
	value, rev, err = o.in.Get(ctx, key)
	return value, rev, outcome(fault, err)
}

func (o faultyObjects[K, T]) Create(ctx context.Context, value T) (ipam.Revision, error) {
	fault, err := o.f.before("create "+o.kind, false)
	if err != nil {
		return ipam.Revision{}, err
	}
	rev, err := o.in.Create(ctx, value)
	return rev, outcome(fault, err)
}

func (o faultyObjects[K, T]) Update(ctx context.Context, value T, at ipam.Revision) (ipam.Revision, error) {
	fault, err := o.f.before("update "+o.kind, true)
	if err != nil {
		return ipam.Revision{}, err
	}
	rev, err := o.in.Update(ctx, value, at)
	return rev, outcome(fault, err)
}

func (o faultyObjects[K, T]) Delete(ctx context.Context, value T, at ipam.Revision) error {
	fault, err := o.f.before("delete "+o.kind, true)
	if err != nil {
		return err
	}
	return outcome(fault, o.in.Delete(ctx, value, at))
}
