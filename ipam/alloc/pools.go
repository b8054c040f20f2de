package alloc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// poolQuery is what decides which pools may serve a request.
type poolQuery struct {
	family    model.Family
	use       model.Use
	node      map[string]string // labels
	namespace map[string]string // labels
	wanted    []string          // names or prefixes of pools; empty: any
}

// usable reports whether addresses may be assigned from a pool at all.
func usable(p model.Pool) bool { return !p.Disabled && !p.Deleting && p.Allocatable }

// allows reports whether a pool is meant for a use. A pool that names no uses
// is for Workload and Tunnel.
func allows(p model.Pool, use model.Use) bool {
	if len(p.AllowedUses) == 0 {
		return use == model.UseWorkload || use == model.UseTunnel
	}
	return slices.Contains(p.AllowedUses, use)
}

// selectPools picks the pools that may serve a request, in the order in which
// they are to be tried: those asked for, as asked; else by name the automatic
// ones whose selectors match. Pools that are asked for are taken whatever
// their selectors say, as Calico does, unless they are strict, yet never against
// their allowed uses.
func selectPools(pools []model.Pool, q poolQuery) ([]model.Pool, error) {
	if len(q.wanted) > 0 {
		return wantedPools(pools, q)
	}
	var out []model.Pool
	for _, p := range pools {
		if !q.family.Has(p.CIDR.Addr()) || !usable(p) || !allows(p, q.use) || p.Manual {
			continue
		}
		if !selectsNode(p, q.node) || !selectsNamespace(p, q) {
			continue
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		return nil, noPool(pools, q)
	}
	slices.SortFunc(out, func(a, b model.Pool) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

func selectsNode(p model.Pool, labels map[string]string) bool {
	return p.NodeSelector == nil || p.NodeSelector.Matches(labels)
}

// selectsNamespace: a tunnel address has no namespace, so a pool that asks for
// one is not for it.
func selectsNamespace(p model.Pool, q poolQuery) bool {
	if p.NamespaceSelector == nil {
		return true
	}
	return q.use != model.UseTunnel && p.NamespaceSelector.Matches(q.namespace)
}

// AnnotationStrict on an IPPool, with the value "true", holds those to its selectors
// who ask for the pool or an address of it by name: whoever may annotate pods of a
// namespace gets no address of another one's.
const AnnotationStrict = "muslin.io/strict-selectors"

// refuses reports whether a strict pool's selectors do not match.
func refuses(p model.Pool, q poolQuery) bool {
	return p.Annotations[AnnotationStrict] == "true" && !(selectsNode(p, q.node) && selectsNamespace(p, q))
}

func wantedPools(pools []model.Pool, q poolQuery) ([]model.Pool, error) {
	var out []model.Pool
	for _, want := range q.wanted {
		i := slices.IndexFunc(pools, func(p model.Pool) bool { return names(want, p) })
		if i < 0 {
			return nil, &ipam.Error{Code: ipam.CodePoolNotFound, Object: model.Ref{Kind: "IPPool", Name: want},
				Detail: "it does not exist", Hint: "name an IPPool or its cidr exactly"}
		}
		p := pools[i]
		ref := model.Ref{Kind: "IPPool", Name: p.Name}
		switch {
		case !q.family.Has(p.CIDR.Addr()):
			return nil, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref, Field: "spec.cidr",
				Detail: fmt.Sprintf("%s is asked for as an %s pool", p.CIDR, q.family), Hint: "name it in the annotation of its own family"}
		case !usable(p):
			return nil, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref, Field: "spec.disabled",
				Detail: "it is disabled, overlaps another pool or is being deleted", Hint: "ask for another pool"}
		case !allows(p, q.use):
			return nil, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref, Field: "spec.allowedUses",
				Detail: "it does not allow the use " + string(q.use), Hint: "ask for another pool, or add the use"}
		case refuses(p, q):
			return nil, &ipam.Error{Code: ipam.CodePoolUnusable, Object: ref, Field: "spec.namespaceSelector",
				Detail: "it is strict (" + AnnotationStrict + "), and its selectors do not match", Hint: "ask for another pool"}
		}
		out = append(out, p)
	}
	return out, nil
}

// names reports whether want is the pool's name or its prefix.
func names(want string, p model.Pool) bool {
	if want == p.Name {
		return true
	}
	cidr, err := netip.ParsePrefix(want)
	return err == nil && cidr == p.CIDR
}

// noPool tells why no pool is left: the reason that stopped most of them.
func noPool(pools []model.Pool, q poolQuery) *ipam.Error {
	e := &ipam.Error{Code: ipam.CodeNoPool, Object: model.Ref{Kind: "IPPool", Name: "*"}}
	count := map[string]int{}
	for _, p := range pools {
		switch {
		case !q.family.Has(p.CIDR.Addr()):
			continue
		case !usable(p):
			count["disabled, overlapping or being deleted"]++
		case !allows(p, q.use):
			count["not for the use "+string(q.use)]++
		case p.Manual:
			count["assigned manually only"]++
		case !selectsNode(p, q.node):
			count["not for this node (nodeSelector)"]++
		default:
			count["not for this namespace (namespaceSelector)"]++
		}
	}
	if len(count) == 0 {
		e.Detail = fmt.Sprintf("there is no %s pool", q.family)
		e.Hint = "create an IPPool"
		return e
	}
	var why []string
	for reason, n := range count {
		why = append(why, fmt.Sprintf("%d %s", n, reason))
	}
	slices.Sort(why)
	e.Detail = fmt.Sprintf("no %s pool may be used here: %s", q.family, strings.Join(why, ", "))
	e.Hint = "create an IPPool, or change the selectors of one"
	return e
}

// poolOf is the pool that an address lies in.
func poolOf(pools []model.Pool, addr netip.Addr) (model.Pool, bool) {
	for _, p := range pools {
		if p.CIDR.Contains(addr) {
			return p, true
		}
	}
	return model.Pool{}, false
}

// blockBits is the prefix length of the pool's blocks; Calico's default when the
// pool does not say.
func blockBits(p model.Pool) int {
	switch {
	case p.BlockSize != 0:
		return p.BlockSize
	case p.CIDR.Addr().Is4():
		return 26
	}
	return 122
}

// covers reports whether block is a block of the pool.
func covers(p model.Pool, block netip.Prefix) bool {
	return p.CIDR.Contains(block.Addr()) && p.CIDR.Bits() <= block.Bits()
}

// withheld makes the test whether an address of a block is kept back: reserved
// (Calico IPReservation.spec.reservedCIDRs), or excluded from its pool; nil when
// nothing inside the block is.
func (s *settings) withheld(block netip.Prefix) func(netip.Addr) bool {
	pool, _ := poolOf(s.pools, block.Addr())
	var near []netip.Prefix
	for _, list := range [][]netip.Prefix{s.reserved, pool.Excluded} {
		for _, r := range list {
			if r.Overlaps(block) {
				near = append(near, r)
			}
		}
	}
	if len(near) == 0 {
		return nil
	}
	return func(a netip.Addr) bool {
		return slices.ContainsFunc(near, func(r netip.Prefix) bool { return r.Contains(a) })
	}
}

// wholly reports whether one reservation holds the whole block.
func wholly(reservations []netip.Prefix, block netip.Prefix) bool {
	return slices.ContainsFunc(reservations, func(r netip.Prefix) bool {
		return r.Bits() <= block.Bits() && r.Contains(block.Addr())
	})
}

// excluded reports whether something else uses an address of the block, so that
// no node may have it: its owner drops packets for what no pod has.
func (s *settings) excluded(block netip.Prefix) bool {
	pool, ok := poolOf(s.pools, block.Addr())
	return ok && slices.ContainsFunc(pool.Excluded, block.Overlaps)
}

// samePool compares what matters for assigning.
func samePool(a, b model.Pool) bool {
	text := func(s model.Selector) string {
		if s == nil {
			return ""
		}
		return s.String()
	}
	return a.Name == b.Name && a.CIDR == b.CIDR && a.BlockSize == b.BlockSize &&
		usable(a) == usable(b) && a.Manual == b.Manual && slices.Equal(a.AllowedUses, b.AllowedUses) &&
		slices.Equal(a.Excluded, b.Excluded) && a.Annotations[AnnotationStrict] == b.Annotations[AnnotationStrict] &&
		text(a.NodeSelector) == text(b.NodeSelector) && text(a.NamespaceSelector) == text(b.NamespaceSelector)
}
