package alloc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// givenFor is how long an address that Assign has returned counts as in use
	// without an endpoint: longer than any ADD may take.
	givenFor = 2 * time.Minute
	// foreignEvery is how often a block of another node, which is not watched, is
	// read again for the live addresses in it.
	foreignEvery = time.Minute
	// restoreRetry is when a live address is stored again that could not be; where
	// another owner has it, repairEvery counts.
	restoreRetry = 2 * time.Second
	// restorers bounds how many handles are restored at the same time.
	restorers = 16
)

// Live is an address that an endpoint of this node has, whatever is stored.
type Live struct {
	Addr   netip.Addr
	Handle string
	Attrs  map[string]string // of a pod "namespace" and "pod", as in Request.Attrs
}

// given is an address that Assign has returned and no endpoint has yet.
type given struct {
	handle string
	until  time.Time
}

// unstored is a live handle of which something could not be stored.
type unstored struct {
	again    time.Time
	problems []model.Problem
}

// SetLive replaces the addresses that endpoints of this node have. No such
// address is given to anybody else, whatever the blocks say, and one that its
// block lacks is stored again: in a block of this node's, which is claimed anew if
// it is gone, or as a borrowed one. Set it before Run, and whenever an endpoint
// has come or gone, the latter before the address is released. Of two endpoints
// with one address the first counts.
func (a *Allocator) SetLive(list []Live) {
	a.mu.Lock()
	defer a.mu.Unlock()
	live := make(map[netip.Addr]Live, len(list))
	for _, l := range list {
		if _, twice := live[l.Addr]; !twice {
			l.Handle = a.networkOf(l)
			live[l.Addr] = l
		}
	}
	if maps.EqualFunc(a.live, live, func(x, y Live) bool { return x.Handle == y.Handle }) {
		return
	}
	a.live = live
	now := time.Now()
	maps.DeleteFunc(a.suspects, func(id string, _ time.Time) bool { return len(a.liveOf(id)) == 0 })
	maps.DeleteFunc(a.given, func(addr netip.Addr, g given) bool {
		_, reported := live[addr]
		return reported || now.After(g.until)
	})
	maps.DeleteFunc(a.foreign, func(addr netip.Addr, _ time.Time) bool {
		_, reported := live[addr]
		return !reported && a.given[addr].handle == ""
	})
	a.signal()
	a.wakeRepair()
}

// samePod reports whether two owners are the same pod: Kubernetes has one of a
// namespace and name at a time.
func samePod(a, b map[string]string) bool {
	return a["pod"] != "" && a["pod"] == b["pod"] && a["namespace"] == b["namespace"]
}

// sandbox is the container ID that ends a pod's handle.
func sandbox(handle string) string { return handle[strings.LastIndexByte(handle, '.')+1:] }

// networkOf is the handle of an endpoint with the network it is known to be of.
// Callers hold mu.
func (a *Allocator) networkOf(l Live) string {
	for _, known := range []string{a.given[l.Addr].handle, a.live[l.Addr].Handle} {
		if known != "" && l.Attrs["pod"] != "" && sandbox(known) == sandbox(l.Handle) {
			return known
		}
	}
	return l.Handle
}

// is reports whether a stored owner is the endpoint: an endpoint of an earlier
// process may not know the name of its network, with which its handle begins.
func (l Live) is(owner ipam.Attribute) bool {
	return owner.Owns(l.Handle) || samePod(owner.Owner, l.Attrs) && sandbox(owner.Handle) == sandbox(l.Handle)
}

// busy is who uses an address on this node beside the handle. Callers hold mu.
func (a *Allocator) busy(addr netip.Addr, handle string) (by ipam.Attribute, ok bool) {
	if l, live := a.live[addr]; live {
		pod := l.Attrs["pod"] != "" && sandbox(l.Handle) == sandbox(handle)
		return ipam.Attribute{Handle: l.Handle, Owner: a.attributes(l.Attrs)}, l.Handle != handle && !pod
	}
	g, ok := a.given[addr]
	return ipam.Attribute{Handle: g.handle}, ok && g.handle != handle && time.Now().Before(g.until)
}

func (a *Allocator) attributes(attrs map[string]string) map[string]string {
	out := maps.Clone(attrs)
	if out == nil {
		out = map[string]string{}
	}
	out["node"] = string(a.node)
	return out
}

// alive reports whether a handle is known to be in use on this node. Callers hold
// mu.
func (a *Allocator) alive(handle string) bool {
	if h := a.handles[handle]; h != nil && h.users > 0 {
		return true
	}
	for _, l := range a.live {
		if l.Handle == handle {
			return true
		}
	}
	for _, g := range a.given {
		if g.handle == handle && time.Now().Before(g.until) {
			return true
		}
	}
	return false
}

// withheld makes the test which addresses of a block a handle does not get:
// those that are reserved, and those in use on this node. Callers hold mu.
func (a *Allocator) withheld(cidr netip.Prefix, handle string) func(netip.Addr) bool {
	reserved := a.set.withheld(cidr)
	used := map[netip.Addr]bool{}
	note := func(addr netip.Addr) {
		if cidr.Contains(addr) {
			if _, ok := a.busy(addr, handle); ok {
				used[addr] = true
			}
		}
	}
	for addr := range a.live {
		note(addr)
	}
	for addr := range a.given {
		note(addr)
	}
	if len(used) == 0 {
		return reserved
	}
	return func(addr netip.Addr) bool { return used[addr] || reserved != nil && reserved(addr) }
}

// liveOf are the live addresses of a handle, in ascending order. Callers hold mu.
func (a *Allocator) liveOf(handle string) []Live {
	var out []Live
	for _, l := range a.live {
		if l.Handle == handle {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(x, y Live) int { return x.Addr.Compare(y.Addr) })
	return out
}

// stored reports whether a block is known to say that a live address is the
// endpoint's, whose network it names. Callers hold mu.
func (a *Allocator) stored(l Live) bool {
	for _, p := range a.pages {
		if p.own(a.node) && p.cidr.Contains(l.Addr) {
			delete(a.foreign, l.Addr)
			owner, ok := p.block.Owner(l.Addr)
			if ok = ok && l.is(owner); ok {
				l.Handle = owner.Handle
				a.live[l.Addr] = l
			}
			return ok
		}
	}
	at, ok := a.foreign[l.Addr]
	return ok && time.Since(at) < foreignEvery
}

// toRestore lists the live handles that have to be stored again, and drops what
// is noted of others.
func (a *Allocator) toRestore() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	lacking := map[string]bool{}
	for _, l := range a.live {
		due, suspect := a.suspects[l.Handle]
		if !a.stored(l) || suspect && !now.Before(due) {
			lacking[l.Handle] = true
		}
	}
	maps.DeleteFunc(a.unstored, func(id string, _ unstored) bool { return !lacking[id] })
	maps.DeleteFunc(lacking, func(id string, _ bool) bool { return now.Before(a.unstored[id].again) })
	return slices.Sorted(maps.Keys(lacking))
}

// keepLive stores what the blocks lack of the live endpoints' addresses. A
// positive duration says when to try again what could not be.
func (a *Allocator) keepLive(ctx context.Context) time.Duration {
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	var wg sync.WaitGroup
	slots := make(chan struct{}, restorers)
	for _, id := range a.toRestore() {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			a.restore(ctx, id)
		})
	}
	wg.Wait()
	a.mu.Lock()
	defer a.mu.Unlock()
	again := time.Duration(0)
	for _, u := range a.unstored {
		if left := max(time.Until(u.again), time.Millisecond); again == 0 || left < again {
			again = left
		}
	}
	return again
}

// restore stores the live addresses of one handle and notes what could not be.
func (a *Allocator) restore(ctx context.Context, id string) {
	h, err := a.lockHandle(ctx, id)
	if err != nil {
		return // the pass is over
	}
	defer a.unlockHandle(h)
	note := unstored{again: time.Now().Add(repairEvery)}
	for _, f := range a.restoreHeld(ctx, h) {
		if ipam.CodeOf(f.err) == ipam.CodeUnavailable {
			note.again = time.Now().Add(restoreRetry)
		}
		note.problems = append(note.problems, f.problem())
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.unstored, id)
	if len(note.problems) > 0 {
		a.unstored[id], a.suspects[id] = note, time.Now()
	}
	a.signal()
}

// failure is a live address that could not be stored.
type failure struct {
	Live
	err error
}

// restoreHeld stores a handle's live addresses and returns those that could not
// be. The caller holds the handle's lock; an endpoint that has gone meanwhile has
// no live address any more.
func (a *Allocator) restoreHeld(ctx context.Context, h *handle) []failure {
	a.mu.Lock()
	list := a.liveOf(h.id)
	delete(a.suspects, h.id)
	a.mu.Unlock()
	h.known = false // it may have been lost with the block
	read := a.readHandle(ctx, h)
	var failed []failure
	for _, l := range list {
		err := read
		if err == nil {
			err = a.restoreAddr(ctx, h, l)
		}
		if err != nil {
			failed = append(failed, failure{l, err})
		}
	}
	return failed
}

// restoreAddr stores one live address, wherever its block is. A failure whose
// outcome is open takes nothing back: the next try looks again.
func (a *Allocator) restoreAddr(ctx context.Context, h *handle, l Live) error {
	req := Request{Handle: l.Handle, Attrs: l.Attrs, Addrs: []netip.Addr{l.Addr}}
	a.mu.Lock()
	held, was := h.held[l.Addr]
	delete(h.held, l.Addr) // to be seen in its block
	a.mu.Unlock()
	w := &assignment{a: a, req: req, h: h, live: &l, owner: req.attribute(a.node, time.Now())}
	w.before = a.have(h)
	_, err := w.run(ctx)
	a.mu.Lock()
	open := ipam.CodeOf(err) == ipam.CodeUnavailable
	if w.wrote.Load() {
		a.suspects[l.Handle] = time.Now().Add(foreignEvery) // its handle may still be about to be lost
	}
	if err == nil {
		a.foreign[l.Addr] = time.Now()
	} else if open && was {
		h.held[l.Addr] = held
	}
	a.mu.Unlock()
	if err != nil && !open {
		err = errors.Join(err, a.writeHandle(ctx, h, counts(a.have(h), h.stored)))
	}
	return err
}

// restoreStanding stores what the blocks lack of a handle that asks again.
func (a *Allocator) restoreStanding(ctx context.Context, h *handle) error {
	a.mu.Lock()
	lacks := slices.ContainsFunc(a.liveOf(h.id), func(l Live) bool { return !a.stored(l) })
	a.mu.Unlock()
	if !lacks {
		return nil
	}
	if failed := a.restoreHeld(ctx, h); len(failed) > 0 {
		return failed[0].err
	}
	return nil
}

// succeeds reports whether an owner that a block names gives way. A live endpoint
// comes before a pod of this node that no endpoint is there of; and a pod that
// asks for an address comes after itself, in an older sandbox that is not here.
func (w *assignment) succeeds(owner ipam.Attribute) bool {
	a := w.a
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.alive(owner.Handle) {
		return false
	}
	if w.live != nil {
		return owner.Owner["pod"] != "" && owner.Owner["node"] == string(a.node)
	}
	return samePod(owner.Owner, w.req.Attrs)
}

func (f failure) problem() model.Problem {
	object := Request{Handle: f.Handle, Attrs: f.Attrs}.object()
	p := model.Problem{Object: object, Field: "status.podIPs", Reason: string(ipam.CodeOf(f.err))}
	p.Message = fmt.Sprintf("%s is in use by %s (handle %s) on this node, and IPAM could not be told: %v", f.Addr, object, f.Handle, f.err)
	if ipam.CodeOf(f.err) == ipam.CodeTaken {
		p.Message += "; delete one of the two pods"
	}
	return p
}
