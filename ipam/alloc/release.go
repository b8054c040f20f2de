package alloc

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Release takes every address of a handle from it and deletes the handle. An
// unknown handle is no error. The blocks are written before the handle: after
// a crash between the two, a second Release still finds everything.
func (a *Allocator) Release(ctx context.Context, handleID string) error {
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	h, err := a.lockHandle(ctx, handleID)
	if err == nil {
		defer a.unlockHandle(h)
		err = a.releaseAll(ctx, h)
	}
	if err != nil {
		return &ipam.Error{Code: ipam.CodeUnavailable, Object: model.Ref{Kind: "IPAMHandle", Name: handleID},
			Detail: "its addresses could not be released", Hint: "it is tried again", Err: err}
	}
	a.clearPending(handleID)
	return nil
}

// ReleaseAddr takes one address from a handle and leaves its others. An address
// that is free, or has another owner, is no error.
func (a *Allocator) ReleaseAddr(ctx context.Context, handleID string, addr netip.Addr) error {
	if err := a.awaitReady(ctx); err != nil {
		return err
	}
	h, err := a.lockHandle(ctx, handleID)
	if err != nil {
		return err
	}
	defer a.unlockHandle(h)
	if !h.known {
		if err := a.readHandle(ctx, h); err != nil {
			return err
		}
		if err := a.adoptStored(ctx, h); err != nil {
			return err
		}
	}
	cidr, ok := a.have(h)[addr]
	if !ok {
		return nil
	}
	a.mu.Lock()
	p := a.page(cidr)
	a.mu.Unlock()
	if err := a.releaseFrom(ctx, p, h, []netip.Addr{addr}); err != nil {
		return err
	}
	return a.writeHandle(ctx, h, counts(a.have(h), h.stored))
}

// releaseAll empties a handle. The caller holds its lock.
func (a *Allocator) releaseAll(ctx context.Context, h *handle) error {
	if !h.known {
		if err := a.readHandle(ctx, h); err != nil {
			return err
		}
	}
	pages := a.pagesOf(h)
	errs := make([]error, len(pages))
	var wg sync.WaitGroup
	for i, p := range pages {
		wg.Go(func() { errs[i] = a.releaseFrom(ctx, p, h, nil) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	a.mu.Lock()
	clear(h.held)
	maps.DeleteFunc(a.given, func(_ netip.Addr, g given) bool { return g.handle == h.id })
	a.signal()
	a.mu.Unlock()
	return a.writeHandle(ctx, h, nil)
}

// pagesOf are the blocks in which a handle may have addresses: those in memory
// that say so, those where addresses are held, those the stored handle names.
func (a *Allocator) pagesOf(h *handle) []*page {
	a.mu.Lock()
	defer a.mu.Unlock()
	var cidrs []netip.Prefix
	for _, p := range a.pages {
		if p.fence || p.block != nil && len(p.block.AddrsOf(h.id)) > 0 {
			cidrs = append(cidrs, p.cidr)
		}
	}
	for _, cidr := range h.held {
		if cidr.IsValid() {
			cidrs = append(cidrs, cidr)
		}
	}
	if h.known {
		cidrs = slices.AppendSeq(cidrs, maps.Keys(h.stored.Blocks))
	}
	slices.SortFunc(cidrs, netip.Prefix.Compare)
	var out []*page
	for _, cidr := range slices.Compact(cidrs) {
		out = append(out, a.page(cidr))
	}
	return out
}

// releaseFrom takes addresses of a handle in one block from it; nil means all
// of them, an empty list none.
func (a *Allocator) releaseFrom(ctx context.Context, p *page, h *handle, addrs []netip.Addr) error {
	if addrs != nil && len(addrs) == 0 {
		return nil
	}
	cooldown := a.config().cooldown()
	empty := false
	o := &op{insist: true, apply: func(b *ipam.Block, now time.Time) bool {
		gone := 0
		if addrs == nil {
			gone = len(b.ReleaseHandle(h.id, now, cooldown))
		}
		for _, addr := range addrs {
			if owner, ok := b.Owner(addr); ok && owner.Owns(h.id) {
				_, err := b.Release([]ipam.Release{{Addr: addr, Handle: h.id}}, now, cooldown)
				if err == nil {
					gone++
				}
			}
		}
		empty = b.Affinity() == "" && b.Empty()
		return gone > 0
	}}
	err := a.submit(ctx, p, o)
	if errors.Is(err, errBlockGone) {
		err = nil
	}
	if err != nil {
		return err
	}
	a.mu.Lock()
	maps.DeleteFunc(h.held, func(addr netip.Addr, _ netip.Prefix) bool {
		return p.cidr.Contains(addr) && (addrs == nil || slices.Contains(addrs, addr))
	})
	maps.DeleteFunc(a.given, func(addr netip.Addr, g given) bool {
		return g.handle == h.id && p.cidr.Contains(addr) && (addrs == nil || slices.Contains(addrs, addr))
	})
	a.mu.Unlock()
	if empty {
		a.deleteUnowned(ctx, p.cidr)
	}
	return nil
}

// deleteUnowned deletes an empty block that is affine to nobody. It is a
// tidying-up: should it fail, the controller does it.
func (a *Allocator) deleteUnowned(ctx context.Context, cidr netip.Prefix) {
	b, rev, err := a.store.Blocks().Get(ctx, cidr)
	if err != nil || b.Affinity() != "" || !b.Empty() {
		return
	}
	_ = a.store.Blocks().Delete(ctx, b, rev)
}
