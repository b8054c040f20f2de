package felix

import (
	"net/netip"
	"slices"
)

// prefixSet answers which member covers a prefix, in time that depends on the
// number of different prefix lengths only.
type prefixSet struct {
	members map[netip.Prefix]int // to the index it was added with
	bits4   []int                // lengths in use, longest first
	bits6   []int
	few     []netip.Prefix // the members, longest first, as long as there are few
}

// fewMembers is up to how many members looking at each is cheaper than hashing.
const fewMembers = 16

func (s *prefixSet) add(p netip.Prefix, index int) {
	if s.members == nil {
		s.members = map[netip.Prefix]int{}
	}
	p = p.Masked()
	if _, ok := s.members[p]; ok {
		return
	}
	s.members[p] = index
	if len(s.members) > fewMembers {
		s.few = nil
	} else {
		s.few = append(s.few, p)
		slices.SortFunc(s.few, func(a, b netip.Prefix) int { return b.Bits() - a.Bits() })
	}
	bits := &s.bits4
	if p.Addr().Is6() {
		bits = &s.bits6
	}
	if !slices.Contains(*bits, p.Bits()) {
		*bits = append(*bits, p.Bits())
		slices.SortFunc(*bits, func(a, b int) int { return b - a })
	}
}

// covering is the longest member that contains all of p, with its index.
func (s *prefixSet) covering(p netip.Prefix) (netip.Prefix, int, bool) {
	if len(s.members) <= fewMembers {
		for _, q := range s.few {
			if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
				return q, s.members[q], true
			}
		}
		return netip.Prefix{}, 0, false
	}
	bits := s.bits4
	if p.Addr().Is6() {
		bits = s.bits6
	}
	for _, n := range bits {
		if n > p.Bits() {
			continue
		}
		q, _ := p.Addr().Prefix(n)
		if i, ok := s.members[q]; ok {
			return q, i, true
		}
	}
	return netip.Prefix{}, 0, false
}

func (s *prefixSet) has(p netip.Prefix) bool {
	_, ok := s.members[p]
	return ok
}

// hostPrefix is the /32 or /128 of an address.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// cover sorts prefixes and leaves out those inside another one.
func cover(in []netip.Prefix) []netip.Prefix {
	sorted := make([]netip.Prefix, 0, len(in))
	for _, p := range in {
		if p.IsValid() {
			sorted = append(sorted, p.Masked())
		}
	}
	slices.SortFunc(sorted, ComparePrefix)
	var out []netip.Prefix
	for _, p := range sorted {
		if n := len(out); n == 0 || !out[n-1].Contains(p.Addr()) {
			out = append(out, p)
		}
	}
	return out
}
