package ipam

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// probes are the sizes of the rounds in which free blocks are looked for by
// reading them one by one, in parallel. In a pool that is half full the first
// round nearly always finds one; only when all rounds fail, which means a pool
// nine tenths full, are the names of its blocks listed.
var probes = []int{2, 6, 12, 24}

// claimTries bounds how many blocks are lost to other nodes before giving up.
const claimTries = 64

var (
	errClaimed  = errors.New("another node has claimed the block")
	errPoolFull = errors.New("every block of the pool exists")
)

// cannotGrow says why no block can be added.
type cannotGrow struct {
	code   Code
	detail string
	hint   string
}

func (e *cannotGrow) Error() string { return e.detail }

// EnsureBlock claims a block of a family unless the node has one: at start, so
// that the first workload need not wait for it. Errors are *Error.
func (a *Allocator) EnsureBlock(ctx context.Context, f Family) error {
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
		return &Error{Code: cannot.code, Object: model.Ref{Kind: "Node", Name: string(a.node)}, Detail: cannot.detail, Hint: cannot.hint}
	}
	return &Error{Code: CodeUnavailable, Object: model.Ref{Kind: "Node", Name: string(a.node)},
		Detail: "no block could be claimed", Hint: "check that the node reaches the Kubernetes API", Err: err}
}

// grow adds a block to the node: a free one, or one that another node has had
// empty for long. One grows at a time for each family; whoever finds that
// another request has grown since it looked (seen) plans again instead.
func (a *Allocator) grow(ctx context.Context, f Family, pools []model.Pool, seen uint64) error {
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
	return &cannotGrow{code: CodePoolExhausted, detail: "every block of " + poolNames(pools) + " belongs to some node",
		hint: "create another IPPool, or release addresses"}
}

// mayGrow checks the limits; stop says that there is nothing to do.
func (a *Allocator) mayGrow(f Family, seen uint64) (stop bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.grown != seen {
		return true, nil
	}
	c := a.set.config
	if !c.AutoAllocateBlocks {
		return true, &cannotGrow{code: CodePoolExhausted, detail: "the node's blocks are full and claiming new ones is off",
			hint: "set autoAllocateBlocks: true in IPAMConfiguration default"}
	}
	n := 0
	for _, p := range a.pages {
		if familyOf(p.cidr.Addr()) == f && (p.aff != nil || p.own(a.node)) {
			n++
		}
	}
	if n >= c.maxBlocks() {
		return true, &cannotGrow{code: CodeBlockLimit, detail: "the node holds as many blocks as it may",
			hint: "raise maxBlocksPerHost in IPAMConfiguration default"}
	}
	return false, nil
}

// claimIn claims a free block of a pool, or returns errPoolFull.
func (a *Allocator) claimIn(ctx context.Context, pool model.Pool) error {
	w := newWalk(pool, a.node)
	k := uint64(0)
	for _, size := range probes {
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
		if _, err := a.claimBlock(ctx, cidr); !errors.Is(err, errClaimed) {
			return err
		}
	}
	return errPoolFull
}

// worthProbing leaves out blocks that are reserved as a whole and those that
// the node knows of already.
func (a *Allocator) worthProbing(cidr netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pages[cidr]
	return (p == nil || p.block == nil) && !wholly(a.set.reserved, cidr)
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
		case errors.Is(err, ErrNotFound):
			vacant = append(vacant, cidrs[i])
		case err != nil:
			return nil, err
		}
	}
	return vacant, nil
}

// claimBlock claims a certain block in three writes: a pending affinity, the
// block, the affinity confirmed. A crash between them leaves a pending affinity
// for the next start to finish or clean. errClaimed when the block turns out to
// be another node's.
func (a *Allocator) claimBlock(ctx context.Context, cidr netip.Prefix) (*page, error) {
	a.mu.Lock()
	p := a.page(cidr)
	p.claiming++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		p.claiming--
		a.forget(p)
		a.hint()
		a.mu.Unlock()
		a.wakeRepair()
	}()
	aff, affRev, err := a.pendAffinity(ctx, cidr)
	if err != nil {
		return nil, err
	}
	b, rev, err := a.makeBlock(ctx, cidr)
	if errors.Is(err, errClaimed) {
		if dropErr := a.dropAffinity(ctx, aff, affRev); dropErr != nil {
			return nil, dropErr
		}
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if aff, affRev, err = a.confirm(ctx, aff, affRev); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages[cidr] = p
	p.install(b, rev)
	p.takeAffinity(aff, affRev)
	a.grown++
	return p, nil
}

// takeAffinity takes an affinity that is newer than the known one. Callers hold
// mu.
func (p *page) takeAffinity(aff Affinity, rev Revision) {
	if rev.Number > p.affRev.Number {
		p.aff, p.affRev = &aff, rev
	}
}

// retry runs step until it is done or ctx ends.
func retry(ctx context.Context, step func() (done bool, err error)) error {
	for try := 1; ; try++ {
		done, err := step()
		if done || hopeless(ctx, err) {
			return err
		}
		if pauseErr := pause(ctx, try); pauseErr != nil || try > maxRounds {
			return errors.Join(err, pauseErr)
		}
	}
}

// pendAffinity makes the node's claim to a block, or finds it. One that is
// confirmed already is left so.
func (a *Allocator) pendAffinity(ctx context.Context, cidr netip.Prefix) (aff Affinity, rev Revision, err error) {
	store := a.store.Affinities()
	err = retry(ctx, func() (bool, error) {
		aff = Affinity{Node: a.node, CIDR: cidr, State: model.BlockPending, Type: affinityHost}
		var err error
		if rev, err = store.Create(ctx, aff); err == nil {
			return true, nil
		}
		found, at, getErr := store.Get(ctx, AffinityKey{Node: a.node, CIDR: cidr})
		if getErr != nil {
			return false, err
		}
		if found.State == model.BlockPendingDeletion {
			if at, err = store.Update(ctx, aff, at); err != nil {
				return false, err
			}
			found = aff
		}
		aff, rev = found, at
		return true, nil
	})
	return aff, rev, err
}

// makeBlock makes the block with the node's affinity, or finds that it has been
// made. errClaimed when it is another's.
func (a *Allocator) makeBlock(ctx context.Context, cidr netip.Prefix) (b *Block, rev Revision, err error) {
	store := a.store.Blocks()
	err = retry(ctx, func() (bool, error) {
		var err error
		if b, err = NewBlock(cidr, HostAffinity(a.node), time.Now()); err != nil {
			return true, err
		}
		if rev, err = store.Create(ctx, b); err == nil {
			return true, nil
		}
		found, at, getErr := store.Get(ctx, cidr)
		if getErr != nil {
			return false, err
		}
		b, rev = found, at
		if b.Node() != a.node {
			return true, errClaimed
		}
		return true, nil
	})
	return b, rev, err
}

// confirm turns a pending affinity into a confirmed one.
func (a *Allocator) confirm(ctx context.Context, aff Affinity, rev Revision) (Affinity, Revision, error) {
	store := a.store.Affinities()
	err := retry(ctx, func() (bool, error) {
		if aff.State == model.BlockConfirmed {
			return true, nil
		}
		next := aff
		next.State = model.BlockConfirmed
		at, err := store.Update(ctx, next, rev)
		if errors.Is(err, ErrNotFound) {
			at, err = store.Create(ctx, next)
		}
		if err == nil {
			aff, rev = next, at
			return true, nil
		}
		found, at, getErr := store.Get(ctx, AffinityKey{Node: aff.Node, CIDR: aff.CIDR})
		if getErr == nil {
			if found.State == model.BlockPendingDeletion {
				return true, errClaimed // somebody is taking it away; repair sees to it
			}
			aff, rev = found, at
		}
		return false, err
	})
	return aff, rev, err
}

// dropAffinity deletes the node's own claim.
func (a *Allocator) dropAffinity(ctx context.Context, aff Affinity, rev Revision) error {
	store := a.store.Affinities()
	err := retry(ctx, func() (bool, error) {
		err := store.Delete(ctx, aff, rev)
		if err == nil || errors.Is(err, ErrNotFound) {
			return true, nil
		}
		found, at, getErr := store.Get(ctx, AffinityKey{Node: aff.Node, CIDR: aff.CIDR})
		if errors.Is(getErr, ErrNotFound) {
			return true, nil
		}
		if getErr == nil {
			aff, rev = found, at
		}
		return false, err
	})
	if err == nil {
		a.mu.Lock()
		if p := a.pages[aff.CIDR]; p != nil {
			p.aff = nil
			a.forget(p)
		}
		a.mu.Unlock()
	}
	return err
}
