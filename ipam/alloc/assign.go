package alloc

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/ipam"
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
	if err := a.restoreStanding(ctx, h); err != nil {
		return nil, a.typed(req, err)
	}
	w := &assignment{a: a, req: req, h: h, owner: req.attribute(a.node, time.Now())}
	w.before = a.have(h)
	w.fresh = !h.known && len(w.before) == 0
	addrs, err := w.run(ctx)
	if err != nil {
		w.undo(ctx)
		return nil, a.typed(req, err)
	}
	a.mu.Lock()
	for _, addr := range addrs {
		if _, reported := a.live[addr]; !reported {
			a.given[addr] = given{req.Handle, time.Now().Add(givenFor)}
		}
	}
	a.mu.Unlock()
	a.clearPending(req.Handle)
	return addrs, nil
}

// typed makes an error an *Error.
func (a *Allocator) typed(req Request, err error) error {
	var typed *ipam.Error
	if errors.As(err, &typed) {
		return err
	}
	return a.unavailable(req, err)
}

func (a *Allocator) unavailable(req Request, err error) *ipam.Error {
	return &ipam.Error{Code: ipam.CodeUnavailable, Object: req.object(), Detail: "addresses could not be written to the datastore",
		Hint: "it is tried again when the container runtime asks again", Err: err}
}

// assignment is one Assign under way. Its goroutine holds the handle's lock.
type assignment struct {
	a      *Allocator
	req    Request
	h      *handle
	owner  ipam.Attribute
	before map[netip.Addr]netip.Prefix // what the handle had
	fresh  bool                        // it had nothing and was not known
	tried  []part                      // every part that was submitted
	chosen chosen
	wrote  atomic.Bool // of an address that was asked for, in its block
	live   *Live       // not nil: it is in use, and no rule of pools keeps it from being stored
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
				if err := w.adopt(ctx); err != nil {
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
	return nil, &ipam.Error{Code: ipam.CodeUnavailable, Object: w.req.object(),
		Detail: "other nodes took every address before it could be written", Hint: "the pool is nearly full; enlarge it"}
}

// adopt takes what the handle turns out to have had from an earlier life as
// its own from before.
func (w *assignment) adopt(ctx context.Context) error {
	added := w.added()
	if err := w.a.adoptStored(ctx, w.h); err != nil {
		return err
	}
	w.fresh = false
	for addr, cidr := range w.a.have(w.h) {
		if !added[addr] {
			w.before[addr] = cidr
		}
	}
	return nil
}

// answer picks the addresses to return: those the handle had before it asked
// come before those that were assigned just now.
func (w *assignment) answer(have map[netip.Addr]netip.Prefix) []netip.Addr {
	if len(w.req.Addrs) > 0 {
		return slices.Clone(w.req.Addrs)
	}
	added := w.added()
	all := slices.SortedFunc(maps.Keys(have), func(x, y netip.Addr) int {
		return cmp.Or(cmp.Compare(rank(added[x]), rank(added[y])), x.Compare(y))
	})
	var out []netip.Addr
	for _, f := range model.Families {
		n := 0
		for _, addr := range all {
			if f.Has(addr) && n < w.req.count(f) {
				out = append(out, addr)
				n++
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare) // IPv4 sorts before IPv6
	return out
}

func rank(late bool) int {
	if late {
		return 1
	}
	return 0
}

// added are the addresses that this assignment has brought.
func (w *assignment) added() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for _, p := range w.tried {
		for _, addr := range p.got {
			if _, ok := w.before[addr]; !ok {
				out[addr] = true
			}
		}
	}
	return out
}

// trim gives back what is more than was asked for: it happens when a handle
// turns out to have addresses in other nodes' blocks from an earlier life.
func (w *assignment) trim(ctx context.Context, have map[netip.Addr]netip.Prefix) error {
	if len(w.req.Addrs) > 0 {
		return nil
	}
	keep, added := w.answer(have), w.added()
	for _, p := range w.tried {
		extra := []netip.Addr{}
		for _, addr := range p.got {
			if _, ok := have[addr]; ok && added[addr] && !slices.Contains(keep, addr) {
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
		added := w.added()
		for _, p := range w.tried {
			extra := slices.DeleteFunc(slices.Clone(p.got), func(addr netip.Addr) bool { return !added[addr] })
			if len(extra) > 0 {
				err = errors.Join(err, w.a.releaseFrom(ctx, p.page, w.h, extra))
			}
		}
		if err == nil {
			err = w.a.writeHandle(ctx, w.h, counts(w.a.have(w.h), w.h.stored))
		}
	}
	if err != nil && len(w.before) == 0 {
		w.a.oweRelease(w.h.id)
	}
}
