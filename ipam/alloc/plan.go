package alloc

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// part is what one block shall contribute.
type part struct {
	page    *page
	n       int        // addresses, counted from base
	base    int        // addresses of the handle in this block before
	addr    netip.Addr // a certain address instead of n any
	foreign bool       // not this node's block
	gave    string     // handle that gave way for addr

	got []netip.Addr
	err error
}

// plan says which blocks shall give what is missing, and claims or borrows
// where the node's own blocks have no room. Nothing missing: no parts.
func (w *assignment) plan(ctx context.Context, have map[netip.Addr]netip.Prefix) ([]*part, error) {
	if len(w.req.Addrs) > 0 {
		return w.planAddrs(ctx, have)
	}
	var parts []*part
	for _, f := range model.Families {
		missing := w.req.count(f) - countFamily(have, f)
		if missing <= 0 {
			continue
		}
		more, err := w.planFamily(ctx, f, missing, have)
		if err != nil {
			w.a.unreserve(parts)
			return nil, err
		}
		parts = append(parts, more...)
	}
	return parts, nil
}

func countFamily(have map[netip.Addr]netip.Prefix, f model.Family) int {
	n := 0
	for addr := range have {
		if f.Has(addr) {
			n++
		}
	}
	return n
}

func (w *assignment) planFamily(ctx context.Context, f model.Family, missing int, have map[netip.Addr]netip.Prefix) ([]*part, error) {
	a := w.a
	for {
		a.mu.Lock()
		seen := a.grown
		pools, err := selectPools(a.set.pools, w.req.query(f, a.set.labels))
		var parts []*part
		if err == nil {
			parts = w.reserve(pools, missing, have)
		}
		a.mu.Unlock()
		if err != nil {
			return nil, err
		}
		for _, p := range parts {
			missing -= p.n
		}
		if missing == 0 {
			return parts, nil
		}
		a.unreserve(parts)
		for _, p := range parts {
			missing += p.n
		}
		err = a.grow(ctx, f, pools, seen)
		if err == nil {
			continue
		}
		var cannot *cannotGrow
		if !errors.As(err, &cannot) {
			return nil, err
		}
		return w.planBorrow(ctx, pools, missing, have, cannot)
	}
}

// planBorrow takes what the own blocks still have and the rest from others'.
func (w *assignment) planBorrow(ctx context.Context, pools []model.Pool, missing int, have map[netip.Addr]netip.Prefix, why *cannotGrow) ([]*part, error) {
	a := w.a
	a.mu.Lock()
	parts := w.reserve(pools, missing, have)
	strict := a.set.config.StrictAffinity
	a.mu.Unlock()
	for _, p := range parts {
		missing -= p.n
	}
	if missing == 0 {
		return parts, nil
	}
	if strict {
		a.unreserve(parts)
		return nil, a.exhausted(w.req, pools, why)
	}
	borrowed, err := a.borrow(ctx, pools, missing)
	for _, p := range borrowed {
		p.base = countIn(have, p.page.cidr)
	}
	if err == nil && len(borrowed) == 0 {
		err = a.exhausted(w.req, pools, why)
	}
	if err != nil {
		a.unreserve(parts)
		return nil, err
	}
	return append(parts, borrowed...), nil
}

// reserve sets room aside in the node's own confirmed blocks: the pool that is
// tried first gives first. Callers hold mu.
func (w *assignment) reserve(pools []model.Pool, missing int, have map[netip.Addr]netip.Prefix) []*part {
	a := w.a
	var parts []*part
	now := time.Now()
	for _, pool := range pools {
		for _, p := range a.sortedPages() {
			if missing == 0 {
				return parts
			}
			if !covers(pool, p.cidr) || !p.own(a.node) || p.state(a.node) != model.BlockConfirmed {
				continue
			}
			n := min(a.room(p, w.h.id, now), missing)
			if n <= 0 {
				continue
			}
			p.planned += n
			missing -= n
			parts = append(parts, &part{page: p, n: n, base: countIn(have, p.cidr)})
		}
	}
	return parts
}

// room is how many addresses of a block the handle can get: neither assigned nor
// promised, reserved or in use. Callers hold mu.
func (a *Allocator) room(p *page, handle string, now time.Time) int {
	return p.block.Room(now, a.set.config.cooldown(), a.withheld(p.cidr, handle)) - p.planned
}

func countIn(have map[netip.Addr]netip.Prefix, cidr netip.Prefix) int {
	n := 0
	for addr := range have {
		if cidr.Contains(addr) {
			n++
		}
	}
	return n
}

// unreserve gives back what was set aside for parts that are not submitted.
func (a *Allocator) unreserve(parts []*part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range parts {
		if !p.foreign && !p.addr.IsValid() {
			p.page.planned -= p.n
		}
	}
}
