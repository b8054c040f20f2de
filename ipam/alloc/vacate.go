package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// vacateWithin is how long a node waits for the controller to act on a claim
	// to another node's block; one that heard nothing asks again after unheardFor.
	vacateWithin   = 4 * time.Second
	vacateInterval = 100 * time.Millisecond
	unheardFor     = time.Minute
)

// errUnheard means that nobody acted on a claim to another node's block.
var errUnheard = errors.New("the controller did not take the block from the node that has it")

// Vacate takes an empty block from the node that has it because another one asks
// for it, by a pending affinity beside the first: an agent may write what is its
// own node's and no other affinity. It is for the controller. ErrNotEmpty means
// that the block is in use, or has been claimed not long ago; ErrConflict that it
// was written to meanwhile. A block that is gone, or is the claimant's by now, is
// no error.
func Vacate(ctx context.Context, store ipam.Store, claimant model.NodeName, cidr netip.Prefix) error {
	b, _, err := store.Blocks().Get(ctx, cidr)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		return nil
	case err != nil:
		return fmt.Errorf("vacate block %s: %w", cidr, err)
	case b.Node() == claimant:
		return nil
	case !b.Vacant(time.Now()):
		return ErrNotEmpty
	}
	seq := b.Sequence()
	return ReleaseAffinity(ctx, store, b.Node(), cidr, AffinityRelease{RequireEmpty: true, Sequence: &seq})
}

// takeOver claims an empty block, after deleting it if it is nobody's.
func (a *Allocator) takeOver(ctx context.Context, v emptied) error {
	if v.node == "" {
		if err := ReleaseAffinity(ctx, a.store, "", v.cidr, AffinityRelease{RequireEmpty: true, Sequence: &v.seq}); err != nil {
			return err
		}
		return a.claimBlock(ctx, v.cidr, a.makeBlock)
	}
	a.mu.Lock()
	unheard := time.Now().Before(a.unheard)
	a.mu.Unlock()
	if unheard {
		return errUnheard
	}
	return a.claimBlock(ctx, v.cidr, a.awaitBlock)
}

// awaitBlock makes a block that another node has once the controller has taken it
// from there: see Vacate. errClaimed when it is in use, errUnheard when nothing
// happens.
func (a *Allocator) awaitBlock(ctx context.Context, cidr netip.Prefix) (*ipam.Block, ipam.Revision, error) {
	tick := time.NewTicker(vacateInterval)
	defer tick.Stop()
	for end := time.Now().Add(vacateWithin); time.Now().Before(end); {
		b, _, err := a.store.Blocks().Get(ctx, cidr)
		switch {
		case errors.Is(err, ipam.ErrNotFound) || err == nil && b.Node() == a.node:
			return a.makeBlock(ctx, cidr)
		case err == nil && !b.Empty():
			return nil, ipam.Revision{}, errClaimed
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ipam.Revision{}, context.Cause(ctx)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.unheard = time.Now().Add(unheardFor)
	return nil, ipam.Revision{}, errUnheard
}
