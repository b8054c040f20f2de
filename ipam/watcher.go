package ipam

import (
	"net/netip"
)

// watcher is the Allocator's face towards Store.WatchOwn.
type watcher Allocator

// ReplaceBlocks takes a list of the node's blocks.
func (w *watcher) ReplaceBlocks(blocks []*Block, at []Revision) {
	a := (*Allocator)(w)
	listed := map[netip.Prefix]bool{}
	for i, b := range blocks {
		listed[b.CIDR()] = true
		w.Block(b, at[i])
	}
	a.mu.Lock()
	var gone []*page
	for _, p := range a.pages {
		if p.own(a.node) && !listed[p.cidr] {
			gone = append(gone, p)
		}
	}
	a.mu.Unlock()
	for _, p := range gone {
		// It may have been claimed after the list was made: repair looks.
		a.mu.Lock()
		claimed := p.claiming > 0
		a.mu.Unlock()
		if !claimed {
			a.lose(p, Revision{})
		}
	}
}

// Block takes a block that is new or has changed. That this node's own writes
// come back is no news.
func (w *watcher) Block(b *Block, at Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.page(b.CIDR())
	if p.block != nil && at.Number <= p.rev.Number {
		return
	}
	p.install(b, at)
	a.hint()
	a.wakeRepair()
}

// BlockGone takes a block that is not this node's any more.
func (w *watcher) BlockGone(cidr netip.Prefix, at Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	p := a.pages[cidr]
	a.mu.Unlock()
	if p != nil {
		a.lose(p, at)
	}
}

// ReplaceAffinities takes a list of the node's affinities.
func (w *watcher) ReplaceAffinities(affinities []Affinity, at []Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	listed := map[netip.Prefix]bool{}
	for i, aff := range affinities {
		listed[aff.CIDR] = true
		a.page(aff.CIDR).takeAffinity(aff, at[i])
	}
	for _, p := range a.sortedPages() {
		if p.aff != nil && !listed[p.cidr] && p.claiming == 0 {
			p.aff = nil
			a.forget(p)
		}
	}
	a.hint()
	a.wakeRepair()
}

// Affinity takes an affinity that is new or has changed.
func (w *watcher) Affinity(aff Affinity, at Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.page(aff.CIDR).takeAffinity(aff, at)
	a.hint()
	a.wakeRepair()
}

// AffinityGone takes an affinity that was deleted.
func (w *watcher) AffinityGone(key AffinityKey, at Revision) {
	a := (*Allocator)(w)
	a.mu.Lock()
	defer a.mu.Unlock()
	if p := a.pages[key.CIDR]; p != nil && p.aff != nil && at.Number >= p.affRev.Number {
		p.aff = nil
		a.forget(p)
		a.hint()
		a.wakeRepair()
	}
}

// Synced tells that both lists have come.
func (w *watcher) Synced() {
	a := (*Allocator)(w)
	a.mu.Lock()
	a.synced = true
	a.mu.Unlock()
	a.hint()
	a.wakeRepair()
}
