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
	"github.com/muslin-net/muslin/pkg/task"
)

// writers is how many handles are written at the same time.
const writers = 8

// ReleaseAddrs takes addresses of one block from owners that are gone, whoever
// the block belongs to: one write of the block for all of them, and one of each
// handle. It is for a collector of garbage, which works from what it saw a
// while ago: unless every address that is still assigned fits its handle and
// sequence number, nothing is released and the error says which does not. A
// block that does not exist any more is no error, and neither is an address
// that is free by now.
func ReleaseAddrs(ctx context.Context, store ipam.Store, cidr netip.Prefix, list []ipam.Release, cooldown time.Duration) error {
	var released map[string]int
	err := retry(ctx, func() (bool, error) {
		b, rev, err := store.Blocks().Get(ctx, cidr)
		if errors.Is(err, ipam.ErrNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		b = b.Clone()
		if released, err = b.Release(list, time.Now(), cooldown); err != nil {
			return true, err
		}
		if len(released) == 0 {
			return true, nil
		}
		b.Bump()
		_, err = store.Blocks().Update(ctx, b, rev)
		return err == nil || errors.Is(err, ipam.ErrNotFound), err
	})
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("release addresses of block %s: %w", cidr, err)
	}
	// A retry may have found its own write done: so every handle that was named
	// is counted anew, not only those of the last try.
	ids := slices.Collect(maps.Keys(released))
	for _, r := range list {
		ids = append(ids, r.Handle)
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return id == "" })
	return task.Each(writers, ids, func(id string) error { return RecountHandle(ctx, store, id) })
}

// RecountHandle makes a handle count what its blocks say it has, and deletes it
// when that is nothing. It must not run beside an Assign for the same handle:
// only the owner's node, or a collector that knows the owner to be gone, may.
func RecountHandle(ctx context.Context, store ipam.Store, id string) error {
	err := retry(ctx, func() (bool, error) {
		h, rev, err := store.Handles().Get(ctx, id)
		if errors.Is(err, ipam.ErrNotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		want := ipam.Handle{ID: h.ID, Blocks: map[netip.Prefix]int{}}
		for cidr := range h.Blocks {
			b, _, err := store.Blocks().Get(ctx, cidr)
			if err != nil && !errors.Is(err, ipam.ErrNotFound) {
				return false, err
			}
			if err == nil {
				if n := len(b.AddrsOf(h.ID)); n > 0 {
					want.Blocks[cidr] = n
				}
			}
		}
		switch {
		case len(want.Blocks) == 0:
			err = store.Handles().Delete(ctx, h, rev)
		case !want.Equal(h):
			_, err = store.Handles().Update(ctx, want, rev)
		}
		return err == nil || errors.Is(err, ipam.ErrNotFound), err
	})
	if err != nil && !errors.Is(err, ipam.ErrNotFound) {
		return fmt.Errorf("count handle %s anew: %w", id, err)
	}
	return nil
}
