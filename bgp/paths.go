package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// paths lists what this node originates: its confirmed blocks, the addresses
// it uses out of other nodes' blocks, and services.
func (b *builder) paths() []Path {
	if b.drain() == DrainWithdrawn {
		return nil
	}
	seen := map[netip.Prefix]bool{}
	var out []Path
	add := func(p netip.Prefix, k PathKind) {
		f := model.FamilyOf(p.Addr())
		nh := b.node.Address(f)
		if p = p.Masked(); !p.IsValid() || !nh.IsValid() || seen[p] {
			return
		}
		seen[p] = true
		out = append(out, Path{Prefix: p, NextHop: nh, LocalPref: b.localPref(f), Kind: k})
	}
	own := b.ownBlocks()
	for _, p := range own {
		add(p, PathBlock)
	}
	for _, p := range b.snap.Borrowed {
		if !insideAny(own, p) {
			add(p, PathBorrowed)
		}
	}
	cordoned := b.cordonedLast()
	for _, list := range []struct {
		kind PathKind
		of   func() (out, ending []netip.Prefix)
	}{{PathService, b.services}, {PathSelected, b.selected}} {
		services, ending := list.of()
		for i, p := range append(services, ending...) {
			before := len(out)
			if add(p, list.kind); len(out) > before && (cordoned || i >= len(services)) {
				out[before].LocalPref, out[before].LastResort = 0, true
				b.ending[p] = true
			}
		}
	}
	slices.SortFunc(out, func(x, y Path) int { return x.Prefix.Compare(y.Prefix) })
	return out
}

// localPref is that of own paths towards iBGP peers.
func (b *builder) localPref(f model.Family) uint32 {
	priority := model.OfFamily(f, b.defaults.RoutePriority, b.defaults.RoutePriorityV6)
	if priority < 1 || priority >= maxLocalPref {
		return LocalPref
	}
	return uint32(maxLocalPref - priority)
}

// ownBlocks are the confirmed blocks of this node. A pending one is not ours
// yet, one pending deletion no longer (Calico announces neither).
func (b *builder) ownBlocks() []netip.Prefix {
	var out []netip.Prefix
	for _, k := range b.snap.Blocks {
		if k.Node == b.node.Name && k.State == model.BlockConfirmed {
			out = append(out, k.CIDR.Masked())
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// insideAny reports whether p lies in one of ps, or is one of them.
func insideAny(ps []netip.Prefix, p netip.Prefix) bool {
	for _, q := range ps {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
