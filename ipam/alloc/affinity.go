package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// ErrNotEmpty means that a block was to be released only if empty, and is not.
var ErrNotEmpty = errors.New("the block has addresses in use")

// AffinityRelease says under which conditions a block is taken from a node.
type AffinityRelease struct {
	RequireEmpty bool    // else a block in use is kept, affine to nobody
	Sequence     *uint64 // the block must still be at this sequence number
}

// ReleaseAffinity takes a block from a node: the affinity becomes pending
// deletion, the block is deleted, or if in use made affine to nobody, and the
// affinity is deleted. Each step is a compare and swap; a crash between them
// is put right by the node's own repair. An empty node means a block that is
// affine to nobody.
//
// It returns ErrConflict when somebody else changed the block or the affinity
// meanwhile, ErrNotEmpty as the conditions say, nil when there is nothing to
// release.
func ReleaseAffinity(ctx context.Context, store ipam.Store, node model.NodeName, cidr netip.Prefix, cond AffinityRelease) error {
	key := ipam.AffinityKey{Node: node, CIDR: cidr}
	var aff ipam.Affinity
	var affRev ipam.Revision
	err := ipam.ErrNotFound
	if node != "" {
		aff, affRev, err = store.Affinities().Get(ctx, key)
	}
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("release block %s of node %s: read affinity: %w", cidr, node, err)
	}
	hasAff := err == nil
	b, rev, err := store.Blocks().Get(ctx, cidr)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		b = nil
	case err != nil:
		return fmt.Errorf("release block %s of node %s: read block: %w", cidr, node, err)
	case b.Node() != node:
		b = nil // the affinity is stale
	case cond.Sequence != nil && *cond.Sequence != b.Sequence():
		return ipam.ErrConflict
	case cond.RequireEmpty && !b.Empty():
		return ErrNotEmpty
	}
	if hasAff {
		aff.State = model.BlockPendingDeletion
		if affRev, err = store.Affinities().Update(ctx, aff, affRev); err != nil {
			return fmt.Errorf("release block %s of node %s: mark affinity: %w", cidr, node, err)
		}
	}
	if err := removeBlock(ctx, store, b, rev); err != nil {
		if hasAff && errors.Is(err, ipam.ErrConflict) {
			// The node was quicker and uses the block: give the claim back.
			aff.State = model.BlockConfirmed
			_, backErr := store.Affinities().Update(ctx, aff, affRev)
			err = errors.Join(err, backErr)
		}
		return fmt.Errorf("release block %s of node %s: %w", cidr, node, err)
	}
	if hasAff {
		if err := store.Affinities().Delete(ctx, aff, affRev); err != nil && !errors.Is(err, ipam.ErrNotFound) {
			return fmt.Errorf("release block %s of node %s: delete affinity: %w", cidr, node, err)
		}
	}
	return nil
}

// removeBlock deletes an empty block and makes one in use affine to nobody.
func removeBlock(ctx context.Context, store ipam.Store, b *ipam.Block, rev ipam.Revision) error {
	if b == nil {
		return nil
	}
	var err error
	if b.Empty() {
		err = store.Blocks().Delete(ctx, b, rev)
	} else {
		b = b.Clone()
		b.SetAffinity("", b.ClaimedAt())
		b.Bump()
		_, err = store.Blocks().Update(ctx, b, rev)
	}
	if errors.Is(err, ipam.ErrNotFound) {
		return nil
	}
	return err
}
