package alloc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// Blocks of something that is no node, such as the addresses of Services. They
// have one writer at a time, which keeps no memory of them: it reads, decides and
// writes, each time anew.

// ErrForeign means that a block belongs to somebody else.
var ErrForeign = errors.New("the block belongs to somebody else")

// ClaimVirtual makes a block that is affine to a virtual owner, in the order in
// which nodes claim theirs; one that is the owner's already is left as it is. It
// returns ErrForeign when the block is another's.
func ClaimVirtual(ctx context.Context, store ipam.Store, owner model.NodeName, cidr netip.Prefix) error {
	aff, affRev, err := virtualAffinity(ctx, store, owner, cidr)
	if err != nil {
		return fmt.Errorf("claim block %s for %s: %w", cidr, owner, err)
	}
	b, err := ipam.NewBlock(cidr, ipam.VirtualAffinity(owner), time.Now())
	if err != nil {
		return err
	}
	if _, err = store.Blocks().Create(ctx, b); errors.Is(err, ipam.ErrExists) {
		found, _, getErr := store.Blocks().Get(ctx, cidr)
		err = getErr
		if err == nil && found.Affinity() != ipam.VirtualAffinity(owner) {
			err = errors.Join(ErrForeign, store.Affinities().Delete(ctx, aff, affRev))
		}
	}
	if err == nil && aff.State != model.BlockConfirmed {
		aff.State = model.BlockConfirmed
		_, err = store.Affinities().Update(ctx, aff, affRev)
	}
	if err != nil {
		return fmt.Errorf("claim block %s for %s: %w", cidr, owner, err)
	}
	return nil
}

// virtualAffinity makes the owner's claim, or finds it.
func virtualAffinity(ctx context.Context, store ipam.Store, owner model.NodeName, cidr netip.Prefix) (ipam.Affinity, ipam.Revision, error) {
	aff := ipam.Affinity{Node: owner, CIDR: cidr, State: model.BlockPending, Type: ipam.TypeVirtual}
	rev, err := store.Affinities().Create(ctx, aff)
	if errors.Is(err, ipam.ErrExists) {
		aff, rev, err = store.Affinities().Get(ctx, ipam.AffinityKey{Node: owner, CIDR: cidr})
	}
	return aff, rev, err
}

// Grant gives one address of a block to an owner.
type Grant struct {
	Addr netip.Addr
	To   ipam.Attribute
	// From is the handle of the owner who has the address now and gives it up;
	// empty: nobody has.
	From string
}

// AssignVirtual gives addresses of one block to their owners: the owners' handles count
// them first, and then all are written at once, or none. An address that another
// owner than expected has is an *Error with CodeTaken; ErrConflict means that
// somebody else has written to the block meanwhile. The handles of those who gave
// an address up count anew.
func AssignVirtual(ctx context.Context, store ipam.Store, cidr netip.Prefix, grants []Grant) error {
	b, rev, err := store.Blocks().Get(ctx, cidr)
	if err != nil {
		return fmt.Errorf("read block %s: %w", cidr, err)
	}
	b = b.Clone()
	before := map[string]int{}
	for _, g := range grants {
		before[g.To.Handle] = len(b.AddrsOf(g.To.Handle))
	}
	for _, g := range grants {
		if g.From != "" {
			if _, err := b.Release([]ipam.Release{{Addr: g.Addr, Handle: g.From}}, time.Now(), 0); err != nil {
				return err
			}
		}
		if err := b.AssignAddr(g.Addr, g.To); err != nil {
			return err
		}
	}
	if err := task.Each(writers, slices.Sorted(maps.Keys(before)), func(id string) error {
		return countHandle(ctx, store, id, cidr, len(b.AddrsOf(id)))
	}); err != nil {
		return err
	}
	b.Bump()
	if _, err := store.Blocks().Update(ctx, b, rev); err != nil {
		return fmt.Errorf("assign addresses of block %s: %w", cidr, err)
	}
	var left []string
	for _, g := range grants {
		if g.From != "" {
			left = append(left, g.From)
		}
	}
	slices.Sort(left)
	return task.Each(writers, slices.Compact(left), func(id string) error { return RecountHandle(ctx, store, id) })
}

// countHandle makes a handle say that it has n addresses in a block.
func countHandle(ctx context.Context, store ipam.Store, id string, cidr netip.Prefix, n int) error {
	err := retry(ctx, func() (bool, error) {
		h, rev, err := store.Handles().Get(ctx, id)
		switch {
		case errors.Is(err, ipam.ErrNotFound):
			_, err = store.Handles().Create(ctx, ipam.Handle{ID: id, Blocks: map[netip.Prefix]int{cidr: n}})
		case err == nil && h.Blocks[cidr] != n:
			h.Blocks = maps.Clone(h.Blocks)
			h.Blocks[cidr] = n
			_, err = store.Handles().Update(ctx, h, rev)
		}
		return err == nil, err
	})
	if err != nil {
		return fmt.Errorf("write handle %s: %w", id, err)
	}
	return nil
}

// DropVirtual deletes an empty block of a virtual owner, and then the claim. A
// block in use, or with addresses that still cool down, is ErrNotEmpty.
func DropVirtual(ctx context.Context, store ipam.Store, owner model.NodeName, cidr netip.Prefix, cooldown time.Duration) error {
	b, rev, err := store.Blocks().Get(ctx, cidr)
	if err == nil && b.Affinity() == ipam.VirtualAffinity(owner) {
		if b = b.Clone(); !b.Empty() {
			b.Collect(time.Now(), cooldown)
		}
		if !b.Empty() {
			return ErrNotEmpty
		}
		err = store.Blocks().Delete(ctx, b, rev)
	}
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("drop block %s of %s: %w", cidr, owner, err)
	}
	aff, affRev, err := store.Affinities().Get(ctx, ipam.AffinityKey{Node: owner, CIDR: cidr})
	if err == nil {
		err = store.Affinities().Delete(ctx, aff, affRev)
	}
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("drop the claim of %s to block %s: %w", owner, cidr, err)
	}
	return nil
}

// SelectPools picks the pools that may serve a use other than a node's, in the
// order in which they are to be tried, as the allocator does for nodes. wanted
// names pools, or their prefixes; empty: any automatic one whose namespaceSelector
// matches. Errors are *Error.
func SelectPools(pools []model.Pool, use model.Use, f model.Family, namespace map[string]string, wanted []string) ([]model.Pool, error) {
	return selectPools(pools, poolQuery{family: f, use: use, namespace: namespace, wanted: wanted})
}

// PoolBlocks yields the blocks of a pool in ascending order, until the loop ends or
// all have been named.
func PoolBlocks(p model.Pool) func(yield func(netip.Prefix) bool) {
	bits := max(blockBits(p), p.CIDR.Bits())
	count := uint64(1) << min(bits-p.CIDR.Bits(), maxIndexBits)
	shift := p.CIDR.Addr().BitLen() - bits
	return func(yield func(netip.Prefix) bool) {
		for k := range count {
			if !yield(netip.PrefixFrom(ipam.AddrAt(p.CIDR.Addr(), k<<shift), bits)) {
				return
			}
		}
	}
}

// PoolBlock is the block of a pool that an address lies in.
func PoolBlock(p model.Pool, a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, max(blockBits(p), p.CIDR.Bits())).Masked()
}
