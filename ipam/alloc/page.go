package alloc

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Timing of the group commit.
const (
	// commitTimeout bounds one commit with all its retries.
	commitTimeout = 20 * time.Second
	// gatherTime is how long a leader waits for company, once there has been
	// any: it bounds the writes of a burst that arrives over some time. A
	// request that comes alone never waits.
	gatherTime = 15 * time.Millisecond
	// burstMemory is how long after a shared write the next one still counts
	// as part of the same burst.
	burstMemory = 100 * time.Millisecond
)

// errBlockGone means that the block an operation was meant for does not exist.
var errBlockGone = errors.New("the block does not exist any more")

// page is one block as this node sees it, with the operations that wait for
// its next write. Allocator.mu guards every field but fence and stale, which
// belong to the leader.
type page struct {
	cidr     netip.Prefix
	block    *ipam.Block // nil: not known to exist
	rev      ipam.Revision
	aff      *ipam.Affinity // this node's claim; nil: none
	affRev   ipam.Revision
	claiming int // claims under way: repair keeps its hands off

	queue     []*op
	planned   int // addresses promised to operations in the queue or in flight
	leading   bool
	lastBatch int
	lastDone  time.Time

	version   uint64   // another whenever somebody else has written the block: see Versions
	writing   bool     // a write of this node's is under way
	meanwhile []uint64 // revisions that have come since it began: one may be its own

	stale bool // read again before the next write
	fence bool // a write's outcome was not learned: write even if nothing changes, so that it can never take effect later
}

// op is one change to a block. The fields are read by its submitter only after
// submit has returned.
type op struct {
	// apply changes b and reports whether it did. It may run several times,
	// each time on a fresh copy.
	apply func(b *ipam.Block, now time.Time) bool
	need  int // addresses promised to it
	// insist: when apply finds nothing to do on the copy in memory, it is run
	// again on one that was read just now.
	insist bool

	err  error
	done chan struct{}
	lead chan struct{}
}

func (p *page) own(node model.NodeName) bool {
	return p.block != nil && p.block.Node() == node && !p.block.Deleted()
}

// state is the block's state as seen from the node: confirmed needs both the
// affinity and the block.
func (p *page) state(node model.NodeName) model.BlockState {
	switch {
	case p.aff == nil || !p.own(node) && p.aff.State == model.BlockConfirmed:
		return model.BlockPending
	default:
		return p.aff.State
	}
}

// page finds or adds the page of a block. Callers hold mu.
func (a *Allocator) page(cidr netip.Prefix) *page {
	p := a.pages[cidr]
	if p == nil {
		p = &page{cidr: cidr}
		a.pages[cidr] = p
	}
	return p
}

// forget drops a page that has nothing to say. Callers hold mu.
func (a *Allocator) forget(p *page) {
	if p.aff == nil && !p.own(a.node) && !p.leading && p.claiming == 0 && !p.fence {
		delete(a.pages, p.cidr)
	}
}

// submit has an operation committed and waits for the outcome. Whoever comes
// first leads: it writes for all that have gathered. Those who come while it
// writes form the next batch, and the first of them leads that.
func (a *Allocator) submit(ctx context.Context, p *page, o *op) error {
	o.done, o.lead = make(chan struct{}), make(chan struct{})
	a.mu.Lock()
	if cur := a.pages[p.cidr]; cur != p {
		if cur == nil {
			a.pages[p.cidr] = p
		} else {
			cur.planned += o.need
			p.planned -= o.need
			p = cur
		}
	}
	p.queue = append(p.queue, o)
	follow := p.leading
	p.leading = true
	a.mu.Unlock()
	if follow {
		select {
		case <-o.done:
			return o.err
		case <-o.lead:
		}
	}
	a.leadBatch(ctx, p)
	<-o.done
	return o.err
}

// leadBatch commits what has gathered, tells the outcome, and hands over.
func (a *Allocator) leadBatch(ctx context.Context, p *page) {
	a.gather(p)
	a.mu.Lock()
	batch := p.queue
	p.queue = nil
	a.mu.Unlock()

	err := a.commit(ctx, p, batch)

	a.mu.Lock()
	for _, o := range batch {
		p.planned -= o.need
		o.err = err
	}
	p.lastBatch, p.lastDone = len(batch), time.Now()
	if len(p.queue) > 0 {
		close(p.queue[0].lead)
	} else {
		p.leading = false
		a.forget(p)
	}
	a.signal()
	a.mu.Unlock()
	for _, o := range batch {
		close(o.done)
	}
}

// gather waits a little for company when there is a burst.
func (a *Allocator) gather(p *page) {
	a.mu.Lock()
	burst := len(p.queue) > 1 || p.lastBatch > 1 && time.Since(p.lastDone) < burstMemory
	a.mu.Unlock()
	if burst {
		time.Sleep(gatherTime)
	}
}

// commit applies a batch and writes the block, until the outcome is known. It
// goes on when the submitter that leads has lost interest: others wait too.
func (a *Allocator) commit(ctx context.Context, p *page, batch []*op) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	for try := 0; ; try++ {
		if try > 0 {
			if err := pause(ctx, try); err != nil {
				return err
			}
		}
		base, rev, err := a.base(ctx, p)
		if errors.Is(err, ipam.ErrNotFound) {
			return errBlockGone
		}
		if err != nil {
			if hopeless(ctx, err) {
				return err
			}
			continue
		}
		done, err := a.write(ctx, p, base, rev, batch)
		if done || hopeless(ctx, err) {
			return err
		}
	}
}

// write is one try of a commit. done is false when it has to be tried again
// from a fresh copy.
func (a *Allocator) write(ctx context.Context, p *page, base *ipam.Block, rev ipam.Revision, batch []*op) (done bool, err error) {
	now := time.Now()
	next := base.Clone()
	next.Collect(now, a.config().cooldown())
	dirty, insist := p.fence, false
	for _, o := range batch {
		changed := o.apply(next, now)
		dirty = dirty || changed
		insist = insist || o.insist && !changed
	}
	if insist && !p.stale {
		// base() read it just now when stale was set.
		p.stale = true
		return false, nil
	}
	if !dirty {
		p.stale = false
		return true, nil
	}
	next.Bump()
	a.mu.Lock()
	p.writing = true
	a.mu.Unlock()
	rev, err = a.store.Blocks().Update(ctx, next, rev)
	a.wrote(p, next, rev, err)
	switch {
	case err == nil:
		p.stale = false
		return true, nil
	case errors.Is(err, ipam.ErrNotFound):
		a.lose(p, ipam.Revision{})
		return true, errBlockGone
	case errors.Is(err, ipam.ErrConflict):
	default:
		a.mu.Lock()
		p.fence = true
		a.mu.Unlock()
	}
	p.stale = true
	return false, err
}

// base is the block to build on: the one in memory, unless that is stale or
// another node's, which is not watched.
func (a *Allocator) base(ctx context.Context, p *page) (*ipam.Block, ipam.Revision, error) {
	a.mu.Lock()
	b, rev := p.block, p.rev
	a.mu.Unlock()
	if b != nil && !p.stale && b.Node() == a.node {
		return b, rev, nil
	}
	b, rev, err := a.getBlock(ctx, p.cidr)
	switch {
	case errors.Is(err, ipam.ErrNotFound):
		a.lose(p, ipam.Revision{})
		return nil, rev, err
	case err != nil:
		return nil, rev, err
	}
	p.stale = true
	a.mu.Lock()
	a.install(p, b, rev)
	a.mu.Unlock()
	return b, rev, nil
}

// wrote takes what this node has written, if it is newer than the known block.
func (a *Allocator) wrote(p *page, b *ipam.Block, rev ipam.Revision, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	own := func(came uint64) bool { return err == nil && came == rev.Number }
	if len(slices.DeleteFunc(p.meanwhile, own)) > 0 {
		a.byOthers(p)
	}
	p.writing, p.meanwhile = false, nil
	if err == nil {
		p.fence = false
		p.install(b, rev)
	}
}

// install takes a block that is newer than the known one, and that this node may not
// have written. Callers hold mu.
func (a *Allocator) install(p *page, b *ipam.Block, rev ipam.Revision) {
	if p.install(b, rev) {
		a.came(p, rev)
	}
}

// came notes a revision that this node may not have written. Callers hold mu.
func (a *Allocator) came(p *page, rev ipam.Revision) {
	if p.writing {
		p.meanwhile = append(p.meanwhile, rev.Number)
	} else {
		a.byOthers(p)
	}
}

// install takes a block that is newer than the known one. Callers hold mu.
func (p *page) install(b *ipam.Block, rev ipam.Revision) bool {
	newer := p.block == nil || rev.Number > p.rev.Number
	if newer {
		p.block, p.rev = b, rev
	}
	return newer
}

// byOthers notes that somebody else has written a block. Callers hold mu.
func (a *Allocator) byOthers(p *page) {
	a.versions++
	p.version = a.versions
}

// lose forgets a block that is gone or is not this node's any more. Addresses
// of this node's workloads in it become borrowed ones.
func (a *Allocator) lose(p *page, at ipam.Revision) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if p.block == nil || at.Number != 0 && at.Number < p.rev.Number {
		return
	}
	for alloc := range p.block.Allocations() {
		if h := a.handles[alloc.Handle]; h != nil && p.own(a.node) {
			h.held[alloc.Addr] = p.cidr
		}
	}
	maps.DeleteFunc(a.foreign, func(addr netip.Addr, _ time.Time) bool { return p.cidr.Contains(addr) })
	p.block = nil
	a.forget(p)
	a.signal()
	a.wakeRepair()
}

func (a *Allocator) config() Config {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.set.config
}

// hopeless reports whether trying again makes no sense.
func hopeless(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, ipam.ErrClosed) || errors.Is(err, ipam.ErrRefused)
}

// pause waits before try n (from 1): not at all after the first failure, which
// mostly is a conflict, then 5 ms doubling to 1 s, with jitter.
func pause(ctx context.Context, n int) error {
	if n < 2 {
		return ctx.Err()
	}
	d := min(5*time.Millisecond<<min(n-2, 10), time.Second)
	d = d/2 + rand.N(d)
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
