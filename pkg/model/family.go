package model

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Family is an address family. The zero value means both, where both make sense.
type Family uint8

// The families.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families are both, in order.
var Families = [...]Family{IPv4, IPv6}

// FamilyOf is the family of an address. An IPv4 address that is written as an IPv6 one
// (RFC 4291 section 2.5.5.2) is of IPv4.
func FamilyOf(a netip.Addr) Family {
	if a.Unmap().Is4() {
		return IPv4
	}
	return IPv6
}

// Has reports whether an address is of the family.
func (f Family) Has(a netip.Addr) bool { return FamilyOf(a) == f }

// Of gives those prefixes of a list that are of the family.
func (f Family) Of(list []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return !f.Has(p.Addr()) })
}

// String gives "IPv4" or "IPv6", as Kubernetes spells it.
func (f Family) String() string { return "IPv" + strconv.Itoa(int(f)) }

// Lower gives "ipv4" or "ipv6", as routers spell it.
func (f Family) Lower() string { return strings.ToLower(f.String()) }

// Other is the family that f is not.
func (f Family) Other() Family { return IPv4 + IPv6 - f }

// OfFamily is that of two values which is for the family.
func OfFamily[T any](f Family, v4, v6 T) T {
	if f == IPv6 {
		return v6
	}
	return v4
}
