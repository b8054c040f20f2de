package ipam

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// maxRounds bounds how often one request plans anew because others took what
// it had in view.
const maxRounds = 30

// undoTimeout bounds the taking back of a request that failed. What cannot be
// taken back in time is tried again in the background.
const undoTimeout = 10 * time.Second

// Assign gives addresses to the owner and returns them: IPv4 before IPv6 and
// ascending, or in the order of Addrs. Asking again for the same handle gives
// the same addresses. It either gives all that is asked for or nothing: on an
// error whatever was written is taken back. Errors are *Error.
func (a *Allocator) Assign(ctx context.Context, req Request) ([]netip.Addr, error) {
	if err := req.validate(); err != nil {
		return nil, err
	}
	if err := a.awaitReady(ctx); err != nil {
		return nil, err
	}
	h, err := a.lockHandle(ctx, req.Handle)
	if err != nil {
		return nil, a.unavailable(req, err)
	}
	defer a.unlockHandle(h)
	w := &assignment{a: a, req: req, h: h, owner: req.attribute(a.node, time.Now())}
	w.before = a.have(h)
	w.fresh = !h.known && len(w.before) == 0
	addrs, err := w.run(ctx)
	if err != nil {
		w.undo(ctx)
		var typed *Error
		if errors.As(err, &typed) {
			return nil, err
		}
		return nil, a.unavailable(req, err)
	}
	a.clearDebt(req.Handle)
	return addrs, nil
}

func (a *Allocator) unavailable(req Request, err error) *Error {
	return &Error{Code: CodeUnavailable, Object: req.object(), Detail: "addresses could not be written to the datastore",
		Hint: "it is tried again when the container runtime asks again", Err: err}
}

// assignment is one Assign under way. Its goroutine holds the handle's lock.
type assignment struct {
	a      *Allocator
	req    Request
	h      *handle
	owner  Attribute
	before map[netip.Addr]netip.Prefix // what the handle had
	fresh  bool                        // it had nothing and was not known
	tried  []part                      // every part that was submitted
}

// part is what one block shall contribute.
type part struct {
	page    *page
	n       int        // addresses, counted from base
	base    int        // addresses of the handle in this block before
	addr    netip.Addr // a certain address instead of n any
	foreign bool       // not this node's block

	got []netip.Addr
	err error
}

// run plans, writes, and looks again until the handle has what was asked for.
func (w *assignment) run(ctx context.Context) ([]netip.Addr, error) {
	for range maxRounds {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		have := w.a.have(w.h)
		parts, err := w.plan(ctx, have)
		if err != nil {
			return nil, err
		}
		if len(parts) == 0 {
			if err := w.trim(ctx, have); err != nil {
				return nil, err
			}
			have = w.a.have(w.h)
			err := w.a.writeHandle(ctx, w.h, counts(have, w.h.stored))
			if errors.Is(err, errHandleExisted) {
				if err := w.a.adoptStored(ctx, w.h); err != nil {
					return nil, err
				}
				continue
			}
			return w.answer(have), err
		}
		if err := w.execute(ctx, have, parts); err != nil {
			return nil, err
		}
	}
	return nil, &Error{Code: CodeUnavailable, Object: w.req.object(),
		Detail: "other nodes took every address before it could be written", Hint: "the pool is nearly full; enlarge it"}
}

// answer picks the addresses to return.
func (w *assignment) answer(have map[netip.Addr]netip.Prefix) []netip.Addr {
	if len(w.req.Addrs) > 0 {
		return slices.Clone(w.req.Addrs)
	}
	all := slices.SortedFunc(maps.Keys(have), netip.Addr.Compare)
	var out []netip.Addr
	for _, f := range []Family{IPv4, IPv6} {
		n := 0
		for _, addr := range all {
			if familyOf(addr) == f && n < w.req.count(f) {
				out = append(out, addr)
				n++
			}
		}
	}
	return out
}

// plan says which blocks shall give what is missing, and claims or borrows
// where the node's own blocks have no room. Nothing missing: no parts.
func (w *assignment) plan(ctx context.Context, have map[netip.Addr]netip.Prefix) ([]*part, error) {
	if len(w.req.Addrs) > 0 {
		return w.planAddrs(ctx, have)
	}
	var parts []*part
	for _, f := range []Family{IPv4, IPv6} {
		missing := w.req.count(f) - countFamily(have, f)
		if missing <= 0 {
			continue
		}
		more, err := w.planFamily(ctx, f, missing, have)
		if err != nil {
			w.a.unpromise(parts)
			return nil, err
		}
		parts = append(parts, more...)
	}
	return parts, nil
}

func countFamily(have map[netip.Addr]netip.Prefix, f Family) int {
	n := 0
	for addr := range have {
		if familyOf(addr) == f {
			n++
		}
	}
	return n
}

func (w *assignment) planFamily(ctx context.Context, f Family, missing int, have map[netip.Addr]netip.Prefix) ([]*part, error) {
	a := w.a
	for {
		a.mu.Lock()
		seen := a.grown
		pools, err := selectPools(a.set.pools, w.req.query(f, a.set.labels))
		var parts []*part
		if err == nil {
			parts = a.promise(pools, missing, have)
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
		a.unpromise(parts)
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
	parts := a.promise(pools, missing, have)
	strict := a.set.config.StrictAffinity
	a.mu.Unlock()
	for _, p := range parts {
		missing -= p.n
	}
	if missing == 0 {
		return parts, nil
	}
	if strict {
		a.unpromise(parts)
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
		a.unpromise(parts)
		return nil, err
	}
	return append(parts, borrowed...), nil
}

// promise sets room aside in the node's own confirmed blocks: the pool that is
// tried first gives first. Callers hold mu.
func (a *Allocator) promise(pools []model.Pool, missing int, have map[netip.Addr]netip.Prefix) []*part {
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
			n := min(a.room(p, now), missing)
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

// room is how many addresses of a block are neither assigned nor promised.
// Callers hold mu.
func (a *Allocator) room(p *page, now time.Time) int {
	n, _ := p.block.Available(reservedBy(a.set.reserved, p.cidr))
	return n + len(p.block.cooled(now, a.set.config.cooldown())) - p.planned
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

// unpromise gives back what was set aside for parts that are not submitted.
func (a *Allocator) unpromise(parts []*part) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range parts {
		if !p.foreign && !p.addr.IsValid() {
			p.page.planned -= p.n
		}
	}
}

// execute writes the parts and the handle. The handle of a borrowed address is
// written first: after a crash it is all that leads to the address. Own blocks
// are found without it, so there both writes go out together.
func (w *assignment) execute(ctx context.Context, have map[netip.Addr]netip.Prefix, parts []*part) error {
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
		if handleErr != nil && !errors.Is(handleErr, errHandleExisted) {
			w.a.unpromise(parts)
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
		handleErr = w.a.adoptStored(ctx, w.h)
	}
	return cmp.Or(errors.Join(errs...), handleErr)
}

// commit has one part written.
func (w *assignment) commit(ctx context.Context, p *part) {
	a := w.a
	reserved := reservedBy(a.reservations(), p.page.cidr)
	o := &op{apply: func(b *Block, _ time.Time) bool {
		return w.apply(p, b, reserved)
	}}
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
			w.h.held[addr] = p.page.cidr
		}
		a.mu.Unlock()
	}
	if p.foreign {
		a.noteRoom(p.page.cidr, len(p.got) < p.n)
	}
}

// apply assigns in a copy of the block. It may run again on another copy, and
// finds there what an earlier try has written after all.
func (w *assignment) apply(p *part, b *Block, reserved func(netip.Addr) bool) bool {
	p.got, p.err = nil, nil
	if !p.foreign && b.Node() != w.a.node {
		return false
	}
	if p.addr.IsValid() {
		before, _ := b.Owner(p.addr)
		if p.err = b.AssignAddr(p.addr, w.owner); p.err != nil {
			return false
		}
		p.got = []netip.Addr{p.addr}
		return !before.owns(w.h.id)
	}
	missing := p.base + p.n - len(b.AddrsOf(w.h.id))
	changed := false
	if missing > 0 {
		changed = len(b.Assign(missing, w.owner, reserved)) > 0
	}
	p.got = b.AddrsOf(w.h.id)
	return changed
}

// trim gives back what is more than was asked for: it happens when a handle
// turns out to have addresses in other nodes' blocks from an earlier life.
func (w *assignment) trim(ctx context.Context, have map[netip.Addr]netip.Prefix) error {
	if len(w.req.Addrs) > 0 {
		return nil
	}
	keep := w.answer(have)
	for _, p := range w.tried {
		extra := []netip.Addr{}
		for _, addr := range p.got {
			if _, ok := have[addr]; ok && !slices.Contains(keep, addr) {
				extra = append(extra, addr)
			}
		}
		if err := w.a.releaseFrom(ctx, p.page, w.h, extra); err != nil {
			return err
		}
	}
	return nil
}

// undo takes back what this assignment may have written. What is left when the
// datastore does not answer becomes a debt.
func (w *assignment) undo(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var err error
	if w.fresh {
		err = w.a.releaseAll(ctx, w.h)
	} else {
		for _, p := range w.tried {
			added := []netip.Addr{}
			for _, addr := range p.got {
				if _, ok := w.before[addr]; !ok {
					added = append(added, addr)
				}
			}
			err = errors.Join(err, w.a.releaseFrom(ctx, p.page, w.h, added))
		}
		if err == nil {
			err = w.a.writeHandle(ctx, w.h, counts(w.a.have(w.h), w.h.stored))
		}
	}
	if err != nil && w.fresh {
		w.a.oweRelease(w.h.id)
	}
}

func (a *Allocator) reservations() []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.set.reserved
}
