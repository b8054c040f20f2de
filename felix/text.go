package felix

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Compare orders next hops: gateway, link.
func (h NextHop) Compare(o NextHop) int {
	return cmp.Or(h.Gateway.Compare(o.Gateway), cmp.Compare(h.Link, o.Link))
}

// String gives "via 10.0.0.1 dev eth0".
func (h NextHop) String() string {
	var b strings.Builder
	h.append(&b, netip.Prefix{})
	return strings.TrimPrefix(b.String(), " ")
}

func (h NextHop) append(b *strings.Builder, p netip.Prefix) {
	if h.Gateway.IsValid() {
		b.WriteString(" via ")
		if p.IsValid() && h.Gateway.Is4() != p.Addr().Is4() {
			b.WriteString("inet6 ")
		}
		b.WriteString(h.Gateway.String())
	}
	b.WriteString(" dev ")
	if h.Device != "" {
		b.WriteString(h.Device)
	} else {
		b.WriteString("if" + strconv.Itoa(h.Link))
	}
	if h.OnLink {
		b.WriteString(" onlink")
	}
}

// Compare orders routes: prefix, metric.
func (r Route) Compare(o Route) int {
	return cmp.Or(ComparePrefix(r.Prefix, o.Prefix), cmp.Compare(r.Metric, o.Metric))
}

// ComparePrefix orders prefixes as Desired does: IPv4 first, then by address,
// then shorter ones first. It takes them as masked, unlike netip.Prefix.Compare,
// which masks both first.
func ComparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(a.Bits(), b.Bits())
}

// String gives the route as `ip route` shows it.
func (r Route) String() string {
	var b strings.Builder
	switch r.Type {
	case Unicast:
	case Blackhole:
		b.WriteString("blackhole ")
	case Unreachable:
		b.WriteString("unreachable ")
	}
	switch {
	case r.Prefix.Bits() == 0:
		b.WriteString("default")
	case r.Prefix.IsSingleIP():
		b.WriteString(r.Prefix.Addr().String())
	default:
		b.WriteString(r.Prefix.String())
	}
	if len(r.NextHops) == 1 {
		r.NextHops[0].append(&b, r.Prefix)
	}
	b.WriteString(" proto " + strconv.Itoa(model.RouteProtocol))
	if r.LinkScope {
		b.WriteString(" scope link")
	}
	if r.Source.IsValid() {
		b.WriteString(" src " + r.Source.String())
	}
	b.WriteString(" metric " + strconv.Itoa(r.Metric))
	if len(r.NextHops) > 1 {
		for _, h := range r.NextHops {
			b.WriteString("\n\tnexthop")
			h.append(&b, r.Prefix)
		}
	}
	return b.String()
}
