package ipam

import (
	"fmt"
	"net/netip"
)

// Family is an address family.
type Family int

// The values of Family.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// String gives "IPv4" or "IPv6", as Kubernetes and the annotation ipFamilies
// spell it.
func (f Family) String() string { return fmt.Sprintf("IPv%d", int(f)) }

// FamilyOf is the family of an address.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}
