package alloc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// repairEvery is how often contradictions are looked for without a hint.
	repairEvery = 15 * time.Second
	// repairTimeout bounds one pass.
	repairTimeout = 30 * time.Second
	// doubtFor is how long a block may look as if another node is taking it
	// before this node takes it back: its taker has crashed by then.
	doubtFor = 15 * time.Second
)

// Run keeps the node's blocks in memory and puts right what an earlier life of
// this node, or another node's crash, has left half done. It returns nil once
// ctx ends.
func (a *Allocator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() { a.repairLoop(ctx) })
	return a.store.WatchOwn(ctx, a.node, (*watcher)(a))
}

func (a *Allocator) repairLoop(ctx context.Context) {
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-again:
		case <-a.wake:
		}
		a.mu.Lock()
		synced, locked := a.synced, a.set.config.Locked
		a.mu.Unlock()
		if !synced {
			continue
		}
		again = nil
		if !locked {
			a.repair(ctx)
			if wait := a.keepLive(ctx); wait > 0 {
				again = time.After(wait)
			}
		}
		select {
		case <-a.ready:
		default:
			close(a.ready)
		}
		if !locked {
			a.retryReleases(ctx)
		}
	}
}

// repair looks at every page whose affinity and block do not fit.
func (a *Allocator) repair(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	var problems []model.Problem
	for _, cidr := range a.contradictions() {
		err := a.repairBlock(ctx, cidr)
		if err != nil && ctx.Err() == nil {
			problems = append(problems, model.Problem{
				Object: model.Ref{Kind: "BlockAffinity", Name: ipam.AffinityName(a.node, cidr)}, Field: "spec.state",
				Reason: "RepairFailed", Message: fmt.Sprintf("the claim to block %s could not be put right and is tried again: %v", cidr, err),
			})
		}
	}
	a.mu.Lock()
	a.problems = problems
	a.mu.Unlock()
}

// contradictions lists the blocks to look at: any but those that are confirmed
// and exist, or that a claim is busy with.
func (a *Allocator) contradictions() []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []netip.Prefix
	for _, p := range a.sortedPages() {
		own := p.own(a.node)
		if p.claiming > 0 || p.aff == nil && !own {
			delete(a.doubts, p.cidr)
			continue
		}
		if own && p.aff != nil && p.aff.State == model.BlockConfirmed {
			delete(a.doubts, p.cidr)
			continue
		}
		out = append(out, p.cidr)
	}
	maps.DeleteFunc(a.doubts, func(cidr netip.Prefix, _ time.Time) bool { return !slices.Contains(out, cidr) })
	return out
}

// repairBlock decides by what the datastore says now, not by memory.
func (a *Allocator) repairBlock(ctx context.Context, cidr netip.Prefix) error {
	aff, affRev, affErr := a.store.Affinities().Get(ctx, ipam.AffinityKey{Node: a.node, CIDR: cidr})
	if affErr != nil && !errors.Is(affErr, ipam.ErrNotFound) {
		return affErr
	}
	b, rev, err := a.getBlock(ctx, cidr)
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return err
	}
	own := err == nil && b.Node() == a.node
	switch {
	case !own && affErr != nil:
		a.absent(cidr)
		return nil
	case !own:
		// The block was never made, or is another's: the claim goes.
		return a.dropAffinity(ctx, aff, affRev)
	case affErr != nil:
		aff = ipam.Affinity{Node: a.node, CIDR: cidr, State: model.BlockConfirmed, Type: ipam.TypeHost}
		if affRev, err = a.store.Affinities().Create(ctx, aff); err != nil {
			return err
		}
	case aff.State == model.BlockPendingDeletion:
		if !a.doubted(cidr) {
			return nil
		}
		// Count a write first: should the taker still be alive, its delete of
		// the block conflicts.
		b = b.Clone()
		b.Bump()
		if rev, err = a.store.Blocks().Update(ctx, b, rev); err != nil {
			return err
		}
		aff.State = model.BlockConfirmed
		if affRev, err = a.store.Affinities().Update(ctx, aff, affRev); err != nil {
			return err
		}
	default:
		if aff, affRev, err = a.confirm(ctx, aff, affRev); err != nil {
			return err
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.page(cidr)
	a.install(p, b, rev)
	p.takeAffinity(aff, affRev)
	a.grown++
	a.signal()
	return nil
}

// absent drops a page of which nothing is left.
func (a *Allocator) absent(cidr netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pages[cidr]; p != nil && p.claiming == 0 {
		p.aff = nil
		if p.own(a.node) {
			p.block = nil
		}
		a.forget(p)
		a.signal()
	}
}

// doubted reports whether a block has looked taken for long enough.
func (a *Allocator) doubted(cidr netip.Prefix) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	since, ok := a.doubts[cidr]
	if !ok {
		a.doubts[cidr] = time.Now()
		return false
	}
	return time.Since(since) >= doubtFor
}
