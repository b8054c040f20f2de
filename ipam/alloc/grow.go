package alloc

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// probes are the sizes of the rounds in which free blocks are looked for by
// reading them one by one, in parallel. In a pool that is half full the first
// round nearly always finds one. Where all rounds together do not reach every
// block, fewRounds are made, which fail when less than one block in ten is
// free; then names are read instead.
var probes = []int{2, 6, 12, 24, 48, 96}

const (
	fewRounds   = 3
	probedInAll = 2 + 6 + 12 + 24 + 48 + 96
)

// claimTries bounds how many blocks are lost to other nodes before giving up.
const claimTries = 64

// cannotGrow says why no block can be added.
type cannotGrow struct {
	code   ipam.Code
	detail string
	signal string
}

func (e *cannotGrow) Error() string { return e.detail }

// EnsureBlock claims a block of a family unless the node has one: at start, so
// that the first workload need not wait for it. Errors are *Error.
func (a *Allocator) EnsureBlock(ctx context.Context, f model.Family) error {
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	a.mu.Lock()
	seen := a.grown
	pools, err := selectPools(a.set.pools, Request{}.query(f, a.set.labels))
	has := err == nil && slices.ContainsFunc(a.sortedPages(), func(p *page) bool {
		return p.own(a.node) && p.state(a.node) == model.BlockConfirmed &&
			slices.ContainsFunc(pools, func(pool model.Pool) bool { return covers(pool, p.cidr) })
	})
	a.mu.Unlock()
	if err != nil || has {
		return err
	}
	err = a.grow(ctx, f, pools, seen)
	var cannot *cannotGrow
	switch {
	case err == nil:
		return nil
	case errors.As(err, &cannot):
		return &ipam.Error{Code: cannot.code, Object: model.Ref{Kind: "Node", Name: string(a.node)}, Detail: cannot.detail, Hint: cannot.signal}
	}
	return &ipam.Error{Code: ipam.CodeUnavailable, Object: model.Ref{Kind: "Node", Name: string(a.node)},
		Detail: "no block could be claimed", Hint: "check that the node reaches the Kubernetes API", Err: err}
}

// grow adds a block to the node: a free one, or one that another node has had
// empty for long. One grows at a time for each family; whoever finds that
// another request has grown since it looked (seen) plans again instead.
func (a *Allocator) grow(ctx context.Context, f model.Family, pools []model.Pool, seen uint64) error {
	select {
	case a.growing[f] <- struct{}{}:
		defer func() { <-a.growing[f] }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if stop, err := a.mayGrow(f, seen); stop {
		return err
	}
	for _, take := range []func(context.Context, model.Pool) error{a.claimIn, a.reclaimIn} {
		for _, pool := range pools {
			if a.knownFull(pool) {
				continue
			}
			err := take(ctx, pool)
			if err == nil {
				return nil
			}
			if !errors.Is(err, errPoolFull) {
				return err
			}
		}
	}
	a.markFull(pools)
	detail := "every block of " + poolNames(pools) + " belongs to some node or is announced by one"
	if slices.ContainsFunc(pools, func(p model.Pool) bool { return len(p.Excluded) > 0 }) {
		detail += " or overlaps what something else uses"
	}
	return &cannotGrow{code: ipam.CodePoolExhausted, detail: detail, signal: "create another IPPool, or release addresses"}
}

// mayGrow checks the limits; stop says that there is nothing to do.
func (a *Allocator) mayGrow(f model.Family, seen uint64) (stop bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.grown != seen {
		return true, nil
	}
	c := a.set.config
	if !c.AutoAllocateBlocks {
		return true, &cannotGrow{code: ipam.CodePoolExhausted, detail: "the node's blocks are full and claiming new ones is off",
			signal: "set autoAllocateBlocks: true in IPAMConfiguration default"}
	}
	if a.atLimit(f) {
		return true, &cannotGrow{code: ipam.CodeBlockLimit, detail: "the node holds as many blocks as it may",
			signal: "raise maxBlocksPerHost in IPAMConfiguration default"}
	}
	return false, nil
}

// atLimit reports whether the node holds as many blocks of a family as it may. The
// caller holds mu.
func (a *Allocator) atLimit(f model.Family) bool {
	n := 0
	for _, p := range a.pages {
		if f.Has(p.cidr.Addr()) && (p.aff != nil || p.own(a.node)) {
			n++
		}
	}
	return n >= a.set.config.maxBlocks()
}

// claimIn claims a free block of a pool, or returns errPoolFull.
func (a *Allocator) claimIn(ctx context.Context, pool model.Pool) error {
	w := newWalk(pool, a.node)
	rounds, k := probes, uint64(0)
	if w.count > probedInAll {
		rounds = probes[:fewRounds]
	}
	for _, size := range rounds {
		var round []netip.Prefix
		for ; k < w.count && len(round) < size; k++ {
			if cidr := w.at(k); a.worthProbing(cidr) {
				round = append(round, cidr)
			}
		}
		vacant, err := a.probe(ctx, round)
		if err != nil {
			return err
		}
		if err := a.claimOneOf(ctx, vacant); !errors.Is(err, errPoolFull) {
			return err
		}
	}
	if k == w.count {
		return errPoolFull
	}
	if err := a.claimInWindows(ctx, w); err == nil {
		return nil
	}
	// Also when a window could not be read: a plain list asks less of a server.
	return a.claimListed(ctx, w)
}

// claimListed lists the names of the pool's blocks and claims one that is
// missing among them.
func (a *Allocator) claimListed(ctx context.Context, w walk) error {
	list, err := a.store.BlockCIDRs(ctx, w.pool)
	if err != nil {
		return err
	}
	taken := make(map[netip.Prefix]bool, len(list))
	for _, cidr := range list {
		taken[cidr] = true
	}
	var vacant []netip.Prefix
	// Reserved blocks must not make the walk endless in a vast IPv6 pool.
	last := min(w.count, uint64(len(taken))+1<<20)
	for k := uint64(0); k < last && len(vacant) < claimTries; k++ {
		if cidr := w.at(k); !taken[cidr] && a.worthProbing(cidr) {
			vacant = append(vacant, cidr)
		}
	}
	return a.claimOneOf(ctx, vacant)
}

// claimOneOf claims the first block that no other node takes away.
func (a *Allocator) claimOneOf(ctx context.Context, vacant []netip.Prefix) error {
	for _, cidr := range vacant {
		if err := a.claimBlock(ctx, cidr, a.makeBlock); !errors.Is(err, errClaimed) {
			return err
		}
	}
	return errPoolFull
}

// worthProbing leaves out blocks that are reserved as a whole, those of which
// something else uses a part, those that another node announces, and those that
// the node knows of already.
func (a *Allocator) worthProbing(cidr netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pages[cidr]
	return (p == nil || p.block == nil) && !wholly(a.set.reserved, cidr) && !a.set.excluded(cidr) && !a.elsewhere(cidr)
}

// SetElsewhere names what tells whether somebody else announces a block, or a part
// of it, now. Such a block is not claimed though the store has none: a node that was
// deleted while it was cut off from the API still runs its pods and says so. Set it
// before Run. It is called with locks held, and must not call the Allocator.
func (a *Allocator) SetElsewhere(announced func(block netip.Prefix) bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.elsewhere = announced
}

// probe returns those of the blocks that do not exist, in the same order.
func (a *Allocator) probe(ctx context.Context, cidrs []netip.Prefix) ([]netip.Prefix, error) {
	errs := make([]error, len(cidrs))
	var wg sync.WaitGroup
	for i, cidr := range cidrs {
		wg.Go(func() { _, _, errs[i] = a.store.Blocks().Get(ctx, cidr) })
	}
	wg.Wait()
	var vacant []netip.Prefix
	for i, err := range errs {
		switch {
		case errors.Is(err, ipam.ErrNotFound):
			vacant = append(vacant, cidrs[i])
		case err != nil:
			return nil, err
		}
	}
	return vacant, nil
}
