package ipam

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// Limits of a block's prefix length (Calico IPPool.spec.blockSize): a block
// holds 1 to 4096 addresses.
const (
	MinBlockLen4 = 20
	MaxBlockLen4 = 32
	MinBlockLen6 = 116
	MaxBlockLen6 = 128
)

// The kinds of affinity: a node's, and that of something else.
const (
	TypeHost    = "host"
	TypeVirtual = "virtual"
)

// reclaimAge is how long a block must have been claimed before another
// node may take it for being empty (Calico EmptyBlockMinReclaimAge).
const reclaimAge = time.Minute

// free marks an ordinal that has no allocation.
const free = -1

// Block is a block of addresses and who holds them: the value behind an
// IPAMBlock object. An address is known inside it by its ordinal, its distance
// from the first address.
//
// A Block is a plain value with one owner. Clone it before changing one that
// others may read; no method is safe beside a changing one.
type Block struct {
	cidr     netip.Prefix
	affinity string
	claimed  time.Time
	slots    []int16  // by ordinal: index into attrs, or free
	unused   []uint16 // free ordinals, first in first out
	attrs    []Attribute
	seq      uint64
	slotSeq  []uint64 // by ordinal: seq when it was assigned
	deleted  bool
	unknown  Unknown // keys of the spec

	// By the clock of this process: since when it knows of the claim, and of the
	// release of the addresses that cool down, by ordinal. Unset where nobody
	// observes, as in a block that was read from a file; the stored times count then.
	claimSeen time.Time
	rests     map[int]time.Time
}

// Attribute is what is known of the owner of one or more addresses.
type Attribute struct {
	Handle     string            // empty: none
	Owner      map[string]string // Calico "secondary": pod, namespace, node, type, timestamp
	Alternate  map[string]string // Calico "alternateOwnerAttrs": the next owner during a live migration
	ReleasedAt time.Time         // set: the address has no owner and cools down
	Unknown    Unknown           // other keys
}

func (a Attribute) equal(b Attribute) bool {
	return a.Handle == b.Handle && a.ReleasedAt.Equal(b.ReleasedAt) &&
		maps.Equal(a.Owner, b.Owner) && maps.Equal(a.Alternate, b.Alternate) && a.Unknown.equal(b.Unknown)
}

// Allocation is one address that has an owner.
type Allocation struct {
	Addr netip.Addr
	Attribute
	Sequence uint64 // the block's sequence number when it was assigned
}

// NewBlock makes an empty block. affinity is "host:<node>", "virtual:<name>"
// or empty. The sequence number starts at now in nanoseconds, so that a block
// which is deleted and made again never repeats one.
func NewBlock(cidr netip.Prefix, affinity string, now time.Time) (*Block, error) {
	n, err := blockSize(cidr)
	if err != nil {
		return nil, err
	}
	b := &Block{
		cidr:    cidr,
		slots:   make([]int16, n),
		unused:  make([]uint16, n),
		slotSeq: make([]uint64, n),
		seq:     uint64(now.UnixNano()),
	}
	b.SetAffinity(affinity, now)
	for i := range n {
		b.slots[i], b.unused[i] = free, uint16(i)
	}
	return b, nil
}

// blockSize is the number of addresses in a block, or an error when the prefix
// cannot be a block.
func blockSize(cidr netip.Prefix) (int, error) {
	lo, hi := MinBlockLen4, MaxBlockLen4
	if cidr.Addr().Is6() {
		lo, hi = MinBlockLen6, MaxBlockLen6
	}
	switch {
	case !cidr.IsValid() || cidr.Addr().Is4In6():
		return 0, fmt.Errorf("block %s: spec.cidr is not a prefix", cidr)
	case cidr.Masked() != cidr:
		return 0, fmt.Errorf("block %s: spec.cidr has bits set after its length; want %s", cidr, cidr.Masked())
	case cidr.Bits() < lo || cidr.Bits() > hi:
		return 0, fmt.Errorf("block %s: spec.cidr has length %d; want %d to %d", cidr, cidr.Bits(), lo, hi)
	}
	return 1 << (cidr.Addr().BitLen() - cidr.Bits()), nil
}

// Clone copies the block; the copies share only maps, which nobody changes.
func (b *Block) Clone() *Block {
	c := *b
	c.slots = slices.Clone(b.slots)
	c.unused = slices.Clone(b.unused)
	c.attrs = slices.Clone(b.attrs)
	c.slotSeq = slices.Clone(b.slotSeq)
	c.rests = maps.Clone(b.rests)
	return &c
}

// CIDR is the block's prefix.
func (b *Block) CIDR() netip.Prefix { return b.cidr }

// Affinity is "host:<node>", "virtual:<name>" or empty.
func (b *Block) Affinity() string { return b.affinity }

// Node is the node the block is affine to, or empty.
func (b *Block) Node() model.NodeName {
	node, ok := strings.CutPrefix(b.affinity, TypeHost+":")
	if !ok {
		return ""
	}
	return model.NodeName(node)
}

// ClaimedAt is when the affinity was claimed; zero when it is not known.
func (b *Block) ClaimedAt() time.Time { return b.claimed }

// Sequence is the block's sequence number: it grows with every write.
func (b *Block) Sequence() uint64 { return b.seq }

// Deleted reports whether a delete has begun: the object is as good as gone.
func (b *Block) Deleted() bool { return b.deleted }

// MarkDeleted begins the delete.
func (b *Block) MarkDeleted() { b.deleted = true }

// Bump counts a write. Call it once before every write of a changed block.
func (b *Block) Bump() { b.seq++ }

// SetAffinity makes the block affine to somebody, or to nobody if empty.
func (b *Block) SetAffinity(affinity string, now time.Time) {
	b.affinity, b.claimed, b.claimSeen = affinity, time.Time{}, time.Time{}
	if affinity != "" {
		b.claimed, b.claimSeen = now.UTC().Truncate(time.Second), now
	}
}

// Size is the number of addresses in the block.
func (b *Block) Size() int { return len(b.slots) }

// InUse is the number of addresses that have an owner.
func (b *Block) InUse() int {
	n := 0
	for _, s := range b.slots {
		if s != free && b.attrs[s].ReleasedAt.IsZero() {
			n++
		}
	}
	return n
}

// Empty reports whether no address has an owner or cools down.
func (b *Block) Empty() bool {
	for _, s := range b.slots {
		if s != free {
			return false
		}
	}
	return true
}

// Available is the number of addresses that could be assigned at once, and how
// many more are free but reserved. reserved may be nil.
func (b *Block) Available(reserved func(netip.Addr) bool) (available, held int) {
	for _, o := range b.unused {
		if reserved != nil && reserved(b.addr(int(o))) {
			held++
		} else {
			available++
		}
	}
	return available, held
}

// Room is the number of addresses that could be assigned after a Collect.
func (b *Block) Room(now time.Time, cooldown time.Duration, withheld func(netip.Addr) bool) int {
	n, _ := b.Available(withheld)
	for _, o := range b.cooled(now, cooldown) {
		if withheld == nil || !withheld(b.addr(o)) {
			n++
		}
	}
	return n
}

// Allocations yields the addresses that have an owner, in ascending order.
func (b *Block) Allocations() iter.Seq[Allocation] {
	return func(yield func(Allocation) bool) {
		for o, s := range b.slots {
			if s == free || !b.attrs[s].ReleasedAt.IsZero() {
				continue
			}
			if !yield(Allocation{Addr: b.addr(o), Attribute: b.attrs[s], Sequence: b.slotSeq[o]}) {
				return
			}
		}
	}
}

// AddrsOf are the addresses of a handle, in ascending order.
func (b *Block) AddrsOf(handle string) []netip.Addr {
	var out []netip.Addr
	for _, o := range b.ordinalsOf(handle) {
		out = append(out, b.addr(o))
	}
	return out
}

// Owner is the attribute of an address; false when it is free or cools down.
func (b *Block) Owner(addr netip.Addr) (Attribute, bool) {
	o, ok := b.ordinal(addr)
	if !ok || b.slots[o] == free || !b.attrs[b.slots[o]].ReleasedAt.IsZero() {
		return Attribute{}, false
	}
	return b.attrs[b.slots[o]], true
}

func (b *Block) ordinalsOf(handle string) []int {
	var out []int
	if !slices.ContainsFunc(b.attrs, func(a Attribute) bool { return a.Owns(handle) }) {
		return nil
	}
	for o, s := range b.slots {
		if s != free && b.attrs[s].Owns(handle) {
			out = append(out, o)
		}
	}
	return out
}

// Owns compares handles as Calico does: what follows a carriage return is dirt
// that an old migration left behind.
func (a Attribute) Owns(handle string) bool {
	have, _, _ := strings.Cut(a.Handle, "\r")
	return have == handle && handle != "" && a.ReleasedAt.IsZero()
}

// addr is the address with that ordinal.
func (b *Block) addr(ordinal int) netip.Addr {
	return AddrAt(b.cidr.Addr(), uint64(ordinal))
}

// ordinal is the place of an address in the block.
func (b *Block) ordinal(addr netip.Addr) (int, bool) {
	if !b.cidr.Contains(addr) {
		return 0, false
	}
	base, a := b.cidr.Addr().AsSlice(), addr.AsSlice()
	n := len(a)
	return int(a[n-2]-base[n-2])<<8 | int(a[n-1]-base[n-1]), true
}

// AddrAt is base + offset.
func AddrAt(base netip.Addr, offset uint64) netip.Addr {
	b := base.As16()
	for i := 15; i >= 0 && offset > 0; i-- {
		offset += uint64(b[i])
		b[i] = byte(offset)
		offset >>= 8
	}
	if base.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}

// Vacant reports whether another node may have the block: it is empty, and has been
// claimed for long enough, by the clock of who claimed it or as long as this process has
// seen it. A clock that is wrong makes nobody wait for ever; at worst an empty block is
// taken that was claimed just now, and its node claims another.
func (b *Block) Vacant(now time.Time) bool {
	long := now.Sub(b.claimed) > reclaimAge || !b.claimSeen.IsZero() && now.Sub(b.claimSeen) > reclaimAge
	return long && b.Empty() && (b.Node() != "" || b.Affinity() == "")
}
