package alloc

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/ipam"
)

// handle is what this node knows of one handle. Allocator.mu guards held and
// users; the rest belongs to whoever holds lock.
type handle struct {
	id    string
	lock  chan struct{} // holds one: taken
	users int

	known  bool // stored and rev are the object as last seen
	stored ipam.Handle
	rev    ipam.Revision

	// held are addresses that may lie outside the node's own blocks, with
	// their block, if known.
	held map[netip.Addr]netip.Prefix
}

// handleEntry finds or adds a handle. Callers hold mu.
func (a *Allocator) handleEntry(id string) *handle {
	h := a.handles[id]
	if h == nil {
		h = &handle{id: id, lock: make(chan struct{}, 1), held: map[netip.Addr]netip.Prefix{}}
		a.handles[id] = h
	}
	return h
}

// lockHandle makes the caller the only one on this node to work on a handle.
func (a *Allocator) lockHandle(ctx context.Context, id string) (*handle, error) {
	a.mu.Lock()
	h := a.handleEntry(id)
	h.users++
	a.mu.Unlock()
	select {
	case h.lock <- struct{}{}:
		return h, nil
	case <-ctx.Done():
		a.dropHandle(h)
		return nil, context.Cause(ctx)
	}
}

func (a *Allocator) unlockHandle(h *handle) {
	<-h.lock
	a.dropHandle(h)
}

func (a *Allocator) dropHandle(h *handle) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h.users--
	if h.users == 0 && !h.known && len(h.held) == 0 {
		delete(a.handles, h.id)
	}
}

// have is where the addresses of a handle are, as far as this node knows.
func (a *Allocator) have(h *handle) map[netip.Addr]netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[netip.Addr]netip.Prefix, len(h.held)+2)
	maps.Copy(out, h.held)
	for _, p := range a.pages {
		if !p.own(a.node) {
			continue
		}
		// What the block says of its own addresses counts, not what was held.
		maps.DeleteFunc(out, func(addr netip.Addr, _ netip.Prefix) bool { return p.cidr.Contains(addr) })
		for _, addr := range p.block.AddrsOf(h.id) {
			out[addr] = p.cidr
		}
	}
	return out
}

// counts turns addresses into the counts of a Handle object. Addresses whose
// block is not known count where the stored object says.
func counts(have map[netip.Addr]netip.Prefix, stored ipam.Handle) map[netip.Prefix]int {
	out := map[netip.Prefix]int{}
	for addr, cidr := range have {
		if !cidr.IsValid() {
			for b := range stored.Blocks {
				if b.Contains(addr) {
					cidr = b
				}
			}
		}
		if cidr.IsValid() {
			out[cidr]++
		}
	}
	return out
}

// errHandleExisted tells that the handle was there already, written by an
// earlier life of this node; it has been read into h.
var errHandleExisted = errors.New("the handle existed already")

// writeHandle makes the stored handle count want; an empty want deletes it.
func (a *Allocator) writeHandle(ctx context.Context, h *handle, want map[netip.Prefix]int) error {
	value := ipam.Handle{ID: h.id, Blocks: want}
	for try := 0; ; try++ {
		if try > 0 {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		settled, err := a.stepHandle(ctx, h, value)
		switch {
		case settled:
			return err
		case err == nil, errors.Is(err, ipam.ErrConflict), errors.Is(err, ipam.ErrNotFound), errors.Is(err, ipam.ErrExists):
		case hopeless(ctx, err):
			return err
		}
	}
}

// stepHandle is one request on the way. When the outcome is open it reads.
func (a *Allocator) stepHandle(ctx context.Context, h *handle, value ipam.Handle) (settled bool, err error) {
	store := a.store.Handles()
	switch {
	case !h.known && len(value.Blocks) == 0:
		return true, nil
	case !h.known:
		h.rev, err = store.Create(ctx, value)
	case h.stored.Equal(value):
		return true, nil
	case len(value.Blocks) == 0:
		if err = store.Delete(ctx, h.stored, h.rev); err == nil || errors.Is(err, ipam.ErrNotFound) {
			h.known = false
			return true, nil
		}
	default:
		h.rev, err = store.Update(ctx, value, h.rev)
	}
	if err == nil {
		h.known, h.stored = true, value
		return true, nil
	}
	wasKnown := h.known
	if readErr := a.readHandle(ctx, h); readErr != nil {
		return false, readErr
	}
	if !wasKnown && errors.Is(err, ipam.ErrExists) && h.known && !h.stored.Equal(value) {
		return true, errHandleExisted
	}
	return false, nil
}

// readHandle reads the stored handle into h; a handle that does not exist is
// no error.
func (a *Allocator) readHandle(ctx context.Context, h *handle) error {
	stored, rev, err := a.store.Handles().Get(ctx, h.id)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		h.known = false
		return nil
	case err != nil:
		return err
	}
	h.known, h.stored, h.rev = true, stored, rev
	return nil
}

// adoptStored looks into the blocks that the stored handle names and that are
// not this node's own, and takes what belongs to the handle as held.
func (a *Allocator) adoptStored(ctx context.Context, h *handle) error {
	for _, cidr := range slices.SortedFunc(maps.Keys(h.stored.Blocks), netip.Prefix.Compare) {
		a.mu.Lock()
		p := a.pages[cidr]
		own := p != nil && p.own(a.node)
		a.mu.Unlock()
		if own {
			continue
		}
		b, _, err := a.store.Blocks().Get(ctx, cidr)
		if errors.Is(err, ipam.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		a.mu.Lock()
		for _, addr := range b.AddrsOf(h.id) {
			h.held[addr] = cidr
		}
		a.mu.Unlock()
	}
	return nil
}
