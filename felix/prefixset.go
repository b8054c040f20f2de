package felix

import (
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// prefixSet answers which member is the longest that covers a prefix, and the index
// that it was added with first. It must not be copied.
type prefixSet struct{ table bart.Table[int] }

func (s *prefixSet) add(p netip.Prefix, index int) {
	if !s.has(p) {
		s.table.Insert(p, index)
	}
}

// covering is the longest member that contains all of p, with its index.
func (s *prefixSet) covering(p netip.Prefix) (netip.Prefix, int, bool) {
	return s.table.LookupPrefixLPM(p)
}

func (s *prefixSet) has(p netip.Prefix) bool {
	_, ok := s.table.Get(p)
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
