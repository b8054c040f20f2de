package alloc

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

var (
	errClaimed  = errors.New("another node has claimed the block")
	errPoolFull = errors.New("every block of the pool exists")
)

// blockMaker makes a block for this node, once its claim is stored.
type blockMaker func(context.Context, netip.Prefix) (*ipam.Block, ipam.Revision, error)

// claimBlock claims a certain block in three writes: a pending affinity, the
// block, the affinity confirmed. A crash between them leaves a pending affinity
// for the next start to finish or clean. errClaimed when the block turns out to
// be another node's.
func (a *Allocator) claimBlock(ctx context.Context, cidr netip.Prefix, get blockMaker) error {
	a.mu.Lock()
	p := a.page(cidr)
	p.claiming++
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		p.claiming--
		a.forget(p)
		a.signal()
		a.mu.Unlock()
		a.wakeRepair()
	}()
	aff, affRev, err := a.pendAffinity(ctx, cidr)
	if err != nil {
		return err
	}
	b, rev, err := get(ctx, cidr)
	if errors.Is(err, errClaimed) || errors.Is(err, errUnheard) {
		if dropErr := a.dropAffinity(ctx, aff, affRev); dropErr != nil {
			return dropErr
		}
		return err
	}
	if err != nil {
		return err
	}
	if aff, affRev, err = a.confirm(ctx, aff, affRev); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pages[cidr] = p
	a.install(p, b, rev)
	p.takeAffinity(aff, affRev)
	a.grown++
	return nil
}

// takeAffinity takes an affinity that is newer than the known one. Callers hold
// mu.
func (p *page) takeAffinity(aff ipam.Affinity, rev ipam.Revision) {
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
func (a *Allocator) pendAffinity(ctx context.Context, cidr netip.Prefix) (aff ipam.Affinity, rev ipam.Revision, err error) {
	store := a.store.Affinities()
	err = retry(ctx, func() (bool, error) {
		aff = ipam.Affinity{Node: a.node, CIDR: cidr, State: model.BlockPending, Type: ipam.TypeHost}
		var err error
		if rev, err = store.Create(ctx, aff); err == nil {
			return true, nil
		}
		found, at, getErr := store.Get(ctx, ipam.AffinityKey{Node: a.node, CIDR: cidr})
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
func (a *Allocator) makeBlock(ctx context.Context, cidr netip.Prefix) (b *ipam.Block, rev ipam.Revision, err error) {
	store := a.store.Blocks()
	err = retry(ctx, func() (bool, error) {
		var err error
		if b, err = ipam.NewBlock(cidr, ipam.HostAffinity(a.node), time.Now()); err != nil {
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
func (a *Allocator) confirm(ctx context.Context, aff ipam.Affinity, rev ipam.Revision) (ipam.Affinity, ipam.Revision, error) {
	store := a.store.Affinities()
	err := retry(ctx, func() (bool, error) {
		if aff.State == model.BlockConfirmed {
			return true, nil
		}
		next := aff
		next.State = model.BlockConfirmed
		at, err := store.Update(ctx, next, rev)
		if errors.Is(err, ipam.ErrNotFound) {
			at, err = store.Create(ctx, next)
		}
		if err == nil {
			aff, rev = next, at
			return true, nil
		}
		found, at, getErr := store.Get(ctx, ipam.AffinityKey{Node: aff.Node, CIDR: aff.CIDR})
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
func (a *Allocator) dropAffinity(ctx context.Context, aff ipam.Affinity, rev ipam.Revision) error {
	store := a.store.Affinities()
	err := retry(ctx, func() (bool, error) {
		err := store.Delete(ctx, aff, rev)
		if err == nil || errors.Is(err, ipam.ErrNotFound) {
			return true, nil
		}
		found, at, getErr := store.Get(ctx, ipam.AffinityKey{Node: aff.Node, CIDR: aff.CIDR})
		if errors.Is(getErr, ipam.ErrNotFound) {
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
