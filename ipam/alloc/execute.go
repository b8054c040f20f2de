package alloc

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
)

// execute writes the parts and the handle. The handle of a borrowed address is
// written first: after a crash it is all that leads to the address. Own blocks
// are found without it, so there both writes go out together.
func (w *assignment) execute(ctx context.Context, have map[netip.Addr]netip.Prefix, parts []*part) error {
	w.chosen.expect(have, parts)
	want := counts(have, w.h.stored)
	borrows := false
	for _, p := range parts {
		want[p.page.cidr] += p.n
		borrows = borrows || p.foreign
	}
	var wg sync.WaitGroup
	var handleErr error
	writeHandle := func() { handleErr = w.a.writeHandle(ctx, w.h, want) }
	if borrows {
		writeHandle()
		if handleErr != nil {
			w.a.unreserve(parts)
			if errors.Is(handleErr, errHandleExisted) {
				return w.adopt(ctx) // and plan again, knowing what it has
			}
			return handleErr
		}
	} else {
		wg.Go(writeHandle)
	}
	for _, p := range parts[1:] {
		wg.Go(func() { w.commit(ctx, p) })
	}
	w.commit(ctx, parts[0])
	wg.Wait()
	var errs []error
	for _, p := range parts {
		w.tried = append(w.tried, *p)
		errs = append(errs, p.err)
	}
	if errors.Is(handleErr, errHandleExisted) {
		handleErr = w.adopt(ctx)
	}
	return cmp.Or(errors.Join(errs...), handleErr)
}

// commit has one part written.
func (w *assignment) commit(ctx context.Context, p *part) {
	a := w.a
	// That a certain address is taken, or another's block full, has to be so now.
	o := &op{insist: p.addr.IsValid() || p.foreign, apply: func(b *ipam.Block, _ time.Time) bool { return w.apply(p, b) }}
	if !p.foreign && !p.addr.IsValid() {
		o.need = p.n
	}
	err := a.submit(ctx, p.page, o)
	switch {
	case errors.Is(err, errBlockGone):
		p.got = nil // the next round looks elsewhere
	case err != nil:
		p.err = err
		return
	}
	if p.foreign && len(p.got) > 0 {
		a.mu.Lock()
		for _, addr := range p.got {
			w.h.held[addr], a.foreign[addr] = p.page.cidr, time.Now()
		}
		a.mu.Unlock()
	}
	if p.gave != "" {
		// Should it fail, the cluster's collector of garbage finds the handle.
		_ = RecountHandle(ctx, a.store, p.gave)
	}
	if p.foreign {
		a.noteRoom(p.page.cidr, len(p.got) < p.n)
	}
}

// apply assigns in a copy of the block. It may run again on another copy, and
// finds there what an earlier try has written after all.
func (w *assignment) apply(p *part, b *ipam.Block) bool {
	p.got, p.err = nil, nil
	if !p.foreign && b.Node() != w.a.node {
		return false
	}
	if p.addr.IsValid() {
		return w.applyAddr(p, b)
	}
	missing := p.base + p.n - len(b.AddrsOf(w.h.id))
	changed := false
	if missing > 0 {
		w.a.mu.Lock()
		withheld := w.a.withheld(p.page.cidr, w.h.id)
		w.a.mu.Unlock()
		changed = len(b.Assign(missing, w.owner, withheld)) > 0
	}
	p.got = b.AddrsOf(w.h.id)
	w.chosen.take(p, w.req.Chosen)
	return changed
}

// applyAddr assigns a certain address, unless somebody uses it.
func (w *assignment) applyAddr(p *part, b *ipam.Block) bool {
	w.a.mu.Lock()
	by, used := w.a.busy(p.addr, w.h.id)
	w.a.mu.Unlock()
	if used {
		p.err = ipam.ErrTaken(p.addr, by)
		return false
	}
	before, taken := b.Owner(p.addr)
	if taken && !before.Owns(w.h.id) && w.succeeds(before) {
		if _, p.err = b.Release([]ipam.Release{{Addr: p.addr}}, time.Time{}, 0); p.err != nil {
			return false
		}
		p.gave = before.Handle
	}
	if p.err = b.AssignAddr(p.addr, w.owner); p.err != nil {
		return false
	}
	p.got = []netip.Addr{p.addr}
	if before.Owns(w.h.id) {
		return false
	}
	w.wrote.Store(true)
	return true
}
