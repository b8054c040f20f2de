package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Assign gives up to n addresses to the owner, the longest free first, and
// skips those for which reserved says so (nil: none). It returns fewer than n
// when the block has no more.
func (b *Block) Assign(n int, owner Attribute, reserved func(netip.Addr) bool) []netip.Addr {
	b.normalise()
	var out []netip.Addr
	rest := b.unused[:0]
	attr := int16(free)
	for i, o := range b.unused {
		if len(out) >= n {
			rest = append(rest, b.unused[i:]...)
			break
		}
		addr := b.addr(int(o))
		if reserved != nil && reserved(addr) {
			rest = append(rest, o)
			continue
		}
		if attr == free {
			attr = b.attribute(owner)
		}
		b.slots[o], b.slotSeq[o] = attr, b.seq
		out = append(out, addr)
	}
	b.unused = rest
	return out
}

// AssignAddr gives one certain address to the owner. An address that already
// is that handle's stays so. A cooling address may be asked for by name. The
// error is an *Error with CodeTaken when another owner has it.
func (b *Block) AssignAddr(addr netip.Addr, owner Attribute) error {
	o, ok := b.ordinal(addr)
	if !ok {
		return fmt.Errorf("block %s: address %s is not in it", b.cidr, addr)
	}
	b.normalise()
	if s := b.slots[o]; s != free {
		if have := b.attrs[s]; have.ReleasedAt.IsZero() {
			if have.Owns(owner.Handle) {
				return nil
			}
			return ErrTaken(addr, have)
		}
		b.discard([]int{o})
	}
	b.slots[o], b.slotSeq[o] = b.attribute(owner), b.seq
	b.unused = slices.DeleteFunc(b.unused, func(u uint16) bool { return int(u) == o })
	return nil
}

// Release is one address to take from its owner.
type Release struct {
	Addr     netip.Addr
	Handle   string  // empty: whoever has it
	Sequence *uint64 // nil: whenever it was assigned
}

// Release takes addresses from their owners. Nothing happens unless every one
// of them that is assigned fits its handle and sequence number; free ones are
// skipped. released counts by handle; an address without one counts under "".
// With a cooldown the addresses stay out of use until Collect finds it over.
func (b *Block) Release(list []Release, now time.Time, cooldown time.Duration) (released map[string]int, err error) {
	b.normalise()
	released = map[string]int{}
	var ordinals []int
	for _, r := range list {
		o, ok := b.ordinal(r.Addr)
		if !ok {
			return nil, fmt.Errorf("block %s: release %s: it is not in the block", b.cidr, r.Addr)
		}
		owner, ok := b.Owner(r.Addr)
		if !ok || slices.Contains(ordinals, o) {
			continue
		}
		if r.Handle != "" && !owner.Owns(r.Handle) {
			return nil, fmt.Errorf("block %s: release %s: it belongs to handle %q, not %q", b.cidr, r.Addr, owner.Handle, r.Handle)
		}
		if r.Sequence != nil && *r.Sequence != b.slotSeq[o] {
			return nil, fmt.Errorf("block %s: release %s: it was assigned at sequence number %d, not %d", b.cidr, r.Addr, b.slotSeq[o], *r.Sequence)
		}
		ordinals = append(ordinals, o)
		released[owner.Handle]++
	}
	b.retire(ordinals, now, cooldown)
	return released, nil
}

// ReleaseHandle takes every address of a handle from it and returns them.
func (b *Block) ReleaseHandle(handle string, now time.Time, cooldown time.Duration) []netip.Addr {
	b.normalise()
	addrs := b.AddrsOf(handle)
	b.retire(b.ordinalsOf(handle), now, cooldown)
	return addrs
}

// retire frees ordinals, at once or after the cooldown.
func (b *Block) retire(ordinals []int, now time.Time, cooldown time.Duration) {
	if len(ordinals) == 0 {
		return
	}
	if cooldown <= 0 {
		b.discard(ordinals)
		return
	}
	attr := b.attribute(Attribute{ReleasedAt: now.UTC().Truncate(time.Second)})
	if b.rests == nil {
		b.rests = map[int]time.Time{}
	}
	for _, o := range ordinals {
		b.slots[o] = attr
		b.rests[o] = now.Add(-time.Duration(now.Nanosecond())) // as stored, but for good on this clock
	}
	b.sweep()
}

// Collect frees the addresses whose cooldown is over, and reports whether
// there were any.
func (b *Block) Collect(now time.Time, cooldown time.Duration) bool {
	b.normalise()
	ordinals := b.cooled(now, cooldown)
	b.discard(ordinals)
	return len(ordinals) > 0
}

// cooled lists the ordinals whose cooldown is over: since this process has known of
// the release, see Observer. The time of release is kept in whole seconds, rounded
// down, so that one more second is waited.
func (b *Block) cooled(now time.Time, cooldown time.Duration) []int {
	if cooldown > 0 {
		cooldown += time.Second
	}
	var out []int
	for o, s := range b.slots {
		if s == free {
			continue
		}
		at := b.attrs[s].ReleasedAt
		if at.IsZero() {
			continue
		}
		if since, known := b.rests[o]; known {
			at = since
		}
		if cooldown <= 0 || !now.Before(at.Add(cooldown)) {
			out = append(out, o)
		}
	}
	return out
}

// discard frees ordinals; they join the end of the queue of free ones.
func (b *Block) discard(ordinals []int) {
	for _, o := range ordinals {
		b.slots[o], b.slotSeq[o] = free, 0
		delete(b.rests, o)
		b.unused = append(b.unused, uint16(o))
	}
	if len(ordinals) > 0 {
		b.sweep()
	}
}

// attribute finds or adds an attribute.
func (b *Block) attribute(a Attribute) int16 {
	if i := slices.IndexFunc(b.attrs, a.equal); i >= 0 {
		return int16(i)
	}
	b.attrs = append(b.attrs, a)
	return int16(len(b.attrs) - 1)
}

// sweep drops attributes that no ordinal refers to.
func (b *Block) sweep() {
	moved := make([]int16, len(b.attrs))
	for _, s := range b.slots {
		if s != free {
			moved[s] = 1
		}
	}
	kept := b.attrs[:0:0]
	for i, used := range moved {
		if used == 1 {
			moved[i] = int16(len(kept))
			kept = append(kept, b.attrs[i])
		}
	}
	if len(kept) == len(b.attrs) {
		return
	}
	b.attrs = kept
	for o, s := range b.slots {
		if s != free {
			b.slots[o] = moved[s]
		}
	}
}

// normalise repairs what another writer may have left: an ordinal that is both
// free and assigned, twice free, or neither. Nothing is ever assigned twice
// because of it.
func (b *Block) normalise() {
	if b.queueSound() {
		return
	}
	seen := make([]bool, len(b.slots))
	kept := b.unused[:0:0]
	for _, o := range b.unused {
		if b.slots[o] == free && !seen[o] {
			seen[o] = true
			kept = append(kept, o)
		}
	}
	for o, s := range b.slots {
		if s == free && !seen[o] {
			kept = append(kept, uint16(o))
		}
	}
	b.unused = kept
	b.sweep()
}

// queueSound reports whether every ordinal is either assigned or in the queue
// once.
func (b *Block) queueSound() bool {
	var seen [1 << (MaxBlockLen4 - MinBlockLen4) / 64]uint64
	assigned := 0
	for _, s := range b.slots {
		if s != free {
			assigned++
		}
	}
	for _, o := range b.unused {
		bit := uint64(1) << (o % 64)
		if b.slots[o] != free || seen[o/64]&bit != 0 {
			return false
		}
		seen[o/64] |= bit
	}
	return assigned+len(b.unused) == len(b.slots)
}
