package alloc

import (
	"context"
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/ipam"
)

// watcher is the Allocator's face towards Store.WatchOwn.
type watcher Allocator

// ReplaceBlocks takes a list of the node's blocks. It counts, but for what was
// written after it was made.
func (w *watcher) ReplaceBlocks(blocks []*ipam.Block, at []ipam.Revision, list ipam.List) {
	a := (*Allocator)(w)
	if list.Restored {
		a.beginAnew()
	}
	a.mu.Lock()
	listed := map[netip.Prefix]bool{}
	for i, b := range blocks {
		listed[b.CIDR()] = true
		if p := a.page(b.CIDR()); p.rev.Number <= list.Number {
			a.replace(p, b, at[i])
		}
	}
	var gone []*page
	for _, p := range a.pages {
		if p.own(a.node) && !listed[p.cidr] && p.rev.Number <= list.Number {
			gone = append(gone, p)
		}
	}
	a.signal()
	a.wakeRepair()
	a.mu.Unlock()
	for _, p := range gone {
		a.lose(p, ipam.Revision{})
	}
}

// replace takes a block of a list, whatever was known. Callers hold mu.
func (a *Allocator) replace(p *page, b *ipam.Block, rev ipam.Revision) {
	known := p.block != nil && p.rev.Number == rev.Number
	p.block, p.rev = b, rev
	if !known {
		a.came(p, rev)
	}
}

// beginAnew notes that the store was put back: its numbers begin anew, whatever
// is read or written next counts, and every live address is looked for again.
func (a *Allocator) beginAnew() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range a.pages {
		p.rev.Number, p.affRev.Number = 0, 0
	}
	for _, l := range a.live {
		a.suspects[l.Handle] = time.Now()
	}
	clear(a.foreign)
	clear(a.full)
	a.wakeRepair()
}

// getBlock reads a block. One that is older than what was known before it was
// asked for shows that the store was put back.
func (a *Allocator) getBlock(ctx context.Context, cidr netip.Prefix) (*ipam.Block, ipam.Revision, error) {
	a.mu.Lock()
	known := uint64(0)
	if p := a.pages[cidr]; p != nil {
		known = p.rev.Number
	}
	a.mu.Unlock()
	b, rev, err := a.store.Blocks().Get(ctx, cidr)
	if err == nil && rev.Number < known {
		a.beginAnew()
	}
	return b, rev, err
}

// Block takes a block that is new or has changed. That this node's own writes
// come back is no news.
func (w *watcher) Block(b *ipam.Block, at ipam.Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.page(b.CIDR())
	if p.block != nil && at.Number <= p.rev.Number {
		return
	}
	a.install(p, b, at)
	a.signal()
	a.wakeRepair()
}

// BlockGone takes a block that is not this node's any more.
func (w *watcher) BlockGone(cidr netip.Prefix, at ipam.Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	p := a.pages[cidr]
	a.mu.Unlock()
	if p != nil {
		a.lose(p, at)
	}
}

// ReplaceAffinities takes a list of the node's affinities, as ReplaceBlocks.
func (w *watcher) ReplaceAffinities(affinities []ipam.Affinity, at []ipam.Revision, list ipam.List) {
	a := (*Allocator)(w)
	if list.Restored {
		a.beginAnew()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	listed := map[netip.Prefix]bool{}
	for i, aff := range affinities {
		listed[aff.CIDR] = true
		if p := a.page(aff.CIDR); p.affRev.Number <= list.Number {
			p.aff, p.affRev = &aff, at[i]
		}
	}
	for _, p := range a.sortedPages() {
		if p.aff != nil && !listed[p.cidr] && p.affRev.Number <= list.Number {
			p.aff = nil
			a.forget(p)
		}
	}
	a.signal()
	a.wakeRepair()
}

// Affinity takes an affinity that is new or has changed.
func (w *watcher) Affinity(aff ipam.Affinity, at ipam.Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.page(aff.CIDR).takeAffinity(aff, at)
	a.signal()
	a.wakeRepair()
}

// AffinityGone takes an affinity that was deleted.
func (w *watcher) AffinityGone(key ipam.AffinityKey, at ipam.Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pages[key.CIDR]; p != nil && p.aff != nil && at.Number >= p.affRev.Number {
		p.aff = nil
		a.forget(p)
		a.signal()
		a.wakeRepair()
	}
}

// Synced tells that both lists have come.
func (w *watcher) Synced() {
	a := (*Allocator)(w)
	a.mu.Lock()
	a.synced = true
	a.mu.Unlock()
	a.signal()
	a.wakeRepair()
}
