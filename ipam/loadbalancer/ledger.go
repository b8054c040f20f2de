package loadbalancer

import (
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// Keys of an owner's attributes in a block. The first two are Calico's.
const (
	ownerService   = "service"
	ownerNamespace = "namespace"
	ownerType      = "type"
	ownerTime      = "timestamp"
	ownerKey       = "shared-ip-key"
)

// mostBlocks bounds how many blocks of a pool are looked at for a free address.
const mostBlocks = 1 << 12

// slot is an address that a block gives to somebody.
type slot struct {
	cidr netip.Prefix
	ipam.Allocation
}

// ledger is what the blocks say, and what they would say once a plan is carried out.
type ledger struct {
	in     *Input
	blocks map[netip.Prefix]*ipam.Block // copies
	order  []netip.Prefix
	slots  map[netip.Addr]slot // before the plan
	mine   map[string][]netip.Addr
	others map[netip.Addr]bool // in the status of Services that are not ours
	claims []netip.Prefix
}

func newLedger(in *Input) *ledger {
	l := &ledger{in: in, blocks: map[netip.Prefix]*ipam.Block{}, slots: map[netip.Addr]slot{}, mine: map[string][]netip.Addr{}, others: map[netip.Addr]bool{}}
	for _, b := range in.Blocks {
		b = b.Clone()
		b.Collect(in.Now, in.Cooldown)
		l.blocks[b.CIDR()] = b
		l.order = append(l.order, b.CIDR())
		for a := range b.Allocations() {
			l.slots[a.Addr] = slot{b.CIDR(), a}
			l.mine[a.Handle] = append(l.mine[a.Handle], a.Addr)
		}
	}
	slices.SortFunc(l.order, netip.Prefix.Compare)
	return l
}

// withheld reports whether an address of a pool is not for anybody who does not ask
// for it: reserved, or in use by something that is no Service of ours.
func (l *ledger) withheld(p model.Pool, a netip.Addr) bool {
	return holds(l.in.Reserved, a) || l.inUse(p, a)
}

// inUse reports whether something else than a Service of ours has an address.
func (l *ledger) inUse(p model.Pool, a netip.Addr) bool {
	return l.others[a] || holds(l.in.InUse, a) || holds(p.Excluded, a)
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}

// next takes the first free address of a pool for an owner: of a block that is
// there, else of the next that nobody has.
func (l *ledger) next(p model.Pool, owner ipam.Attribute) (netip.Addr, netip.Prefix, bool) {
	take := func(b *ipam.Block) []netip.Addr {
		return b.Assign(1, owner, func(a netip.Addr) bool { return l.withheld(p, a) })
	}
	for _, cidr := range l.order {
		if p.CIDR.Bits() <= cidr.Bits() && p.CIDR.Contains(cidr.Addr()) {
			if got := take(l.blocks[cidr]); len(got) > 0 {
				return got[0], cidr, true
			}
		}
	}
	tried := 0
	for cidr := range alloc.PoolBlocks(p) {
		if tried++; tried > mostBlocks {
			break
		}
		b := l.fresh(cidr)
		if b == nil {
			continue
		}
		if got := take(b); len(got) > 0 {
			l.claim(b)
			return got[0], cidr, true
		}
	}
	return netip.Addr{}, netip.Prefix{}, false
}

// fresh is a block that could be claimed; nil when somebody has it, or a part.
func (l *ledger) fresh(cidr netip.Prefix) *ipam.Block {
	if slices.ContainsFunc(l.order, cidr.Overlaps) || slices.ContainsFunc(l.in.Foreign, cidr.Overlaps) {
		return nil
	}
	b, err := ipam.NewBlock(cidr, ipam.VirtualAffinity(ipam.LoadBalancer), l.in.Now)
	if err != nil {
		return nil // the pool's blockSize is out of range: the CRD lets none through
	}
	return b
}

func (l *ledger) claim(b *ipam.Block) {
	l.blocks[b.CIDR()] = b
	l.order = append(l.order, b.CIDR())
	slices.SortFunc(l.order, netip.Prefix.Compare)
	l.claims = append(l.claims, b.CIDR())
}

// take takes one certain free address; false: its block is not to be had, or
// somebody has the address.
func (l *ledger) take(p model.Pool, a netip.Addr, owner ipam.Attribute) (netip.Prefix, bool) {
	for _, cidr := range l.order {
		if cidr.Contains(a) {
			return cidr, l.blocks[cidr].AssignAddr(a, owner) == nil
		}
	}
	cidr := alloc.PoolBlock(p, a)
	b := l.fresh(cidr)
	if b == nil || b.AssignAddr(a, owner) != nil {
		return cidr, false
	}
	l.claim(b)
	return cidr, true
}

// attribute is what a block says of a Service.
func attribute(w *wish, now time.Time) ipam.Attribute {
	owner := map[string]string{ownerService: w.Name, ownerNamespace: w.Namespace, ownerType: "LoadBalancer", ownerTime: now.UTC().String()}
	if w.key != "" {
		owner[ownerKey] = w.key
	}
	return ipam.Attribute{Handle: w.handle, Owner: owner}
}
