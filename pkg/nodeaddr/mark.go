package nodeaddr

import (
	"net/netip"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Family has the names of what belongs to one address family on a Node, and on
// BGPConfiguration default.
type Family struct {
	model.Family
	Address string // Calico's annotation with the address, as in 192.0.2.1/24
	Mark    string // who wrote that, where it was the agent
	Method  string // how to find it; of the Node, else of the BGPConfiguration
}

// The families.
var (
	IPv4 = Family{model.IPv4, "projectcalico.org/IPv4Address", "muslin.io/ipv4-address-from", "muslin.io/ip-autodetection-method"}
	IPv6 = Family{model.IPv6, "projectcalico.org/IPv6Address", "muslin.io/ipv6-address-from", "muslin.io/ip6-autodetection-method"}
)

// Families are both, in order.
var Families = []Family{IPv4, IPv6}

// mark is the text of a mark: the method, and the value that was written. With
// the value in it a mark does not count for what somebody wrote later.
func mark(m Method, value string) string { return m.String() + " " + value }

// MarkedBy is the method by which an agent wrote value; ok is false when it is
// not the one that the mark speaks of.
func MarkedBy(mark, value string) (method string, ok bool) {
	method, marked, _ := strings.Cut(mark, " ")
	return method, value != "" && marked == value
}

// Known is the address that a Node tells everybody: what is annotated, unless
// that is what an agent took from the InternalIP and the Node has another one
// by now, or unless nothing is. The length of the annotated subnet stays with an
// address that lies in it; else it is a host prefix until the agent has looked.
func Known(f Family, annotated netip.Prefix, value, mark string, internal []netip.Addr) netip.Prefix {
	own := ofFamily(f, internal)
	if annotated.IsValid() {
		method, marked := MarkedBy(mark, value)
		if !marked || method != InternalIP || len(own) == 0 || contains(own, annotated.Addr()) {
			return annotated
		}
		if annotated.Masked().Contains(own[0]) {
			return netip.PrefixFrom(own[0], annotated.Bits())
		}
	}
	if len(own) == 0 {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(own[0], own[0].BitLen())
}

func ofFamily(f Family, addrs []netip.Addr) (out []netip.Addr) {
	for _, a := range addrs {
		if f.Has(a) {
			out = append(out, a)
		}
	}
	return out
}

func contains(addrs []netip.Addr, a netip.Addr) bool {
	for _, b := range addrs {
		if a == b {
			return true
		}
	}
	return false
}
