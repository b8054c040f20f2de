package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// reader collects the problems of one object while its fields are read.
type reader struct {
	object   model.Ref
	problems []model.Problem
}

// warn reports a field, once.
func (r *reader) warn(field, format string, args ...any) {
	r.report("InvalidValue", field, format, args...)
}

func (r *reader) report(reason, field, format string, args ...any) {
	p := model.Problem{Object: r.object, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)}
	if !slices.Contains(r.problems, p) {
		r.problems = append(r.problems, p)
	}
}

// prefix reads a CIDR. An IPv4-mapped one is of IPv4.
func (r *reader) prefix(field, text string) (p netip.Prefix, ok bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		r.warn(field, "%q is not a CIDR, as in 192.0.2.0/24", text)
		return p, false
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// net reads a CIDR, or an address, which stands for itself alone.
func (r *reader) net(field, text string) (p netip.Prefix, ok bool) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return r.prefix(field, text)
}
