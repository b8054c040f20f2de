package policy

import (
	"net/netip"
	"slices"
)

// plain gives a prefix as packets know it: an IPv4-mapped one is of IPv4.
func plain(p netip.Prefix) netip.Prefix {
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// rangeOf gives the first and the last address of a prefix.
func rangeOf(p netip.Prefix) Range {
	p = plain(p)
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(b)
	return Range{p.Addr(), last}
}

// mergePrefixes gives the addresses of all valid prefixes as disjoint ranges
// that do not touch.
func mergePrefixes(in []netip.Prefix) []Range {
	out := make([]Range, 0, len(in))
	for _, p := range in {
		if p.IsValid() {
			out = append(out, rangeOf(p))
		}
	}
	return merge(out)
}

// merge sorts ranges and joins those that overlap or touch.
func merge(in []Range) []Range {
	slices.SortFunc(in, Range.Compare)
	out := in[:0]
	for _, r := range in {
		if n := len(out); n > 0 && joins(out[n-1], r) {
			if out[n-1].Last.Less(r.Last) {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}

// joins reports whether b, which does not begin before a, overlaps or touches it.
func joins(a, b Range) bool {
	if a.First.Is4() != b.First.Is4() {
		return false
	}
	return !a.Last.Less(b.First) || a.Last.Next() == b.First
}

// subtract gives what is in a and not in b; both are merged.
func subtract(a, b []Range) []Range {
	var out []Range
	for _, r := range a {
		rest := true
		for _, x := range b {
			if x.First.Is4() != r.First.Is4() || x.Last.Less(r.First) {
				continue
			}
			if r.Last.Less(x.First) {
				break
			}
			if r.First.Less(x.First) {
				out = append(out, Range{r.First, x.First.Prev()})
			}
			if !x.Last.Less(r.Last) {
				rest = false
				break
			}
			r.First = x.Last.Next()
		}
		if rest {
			out = append(out, r)
		}
	}
	return out
}
