package nl

import (
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
)

// OtherRouteType stands for a kind of route that Muslin never writes, so that
// it differs from anything wanted.
const OtherRouteType felix.RouteType = 255

// RouteHeader is the fixed part of a route message (struct rtmsg).
type RouteHeader struct {
	Family, Bits, TOS, Table, Protocol, Scope, Type byte
	Flags                                           uint32
}

func parseHeader(b []byte) (RouteHeader, bool) {
	if len(b) < unix.SizeofRtMsg {
		return RouteHeader{}, false
	}
	return RouteHeader{
		Family: b[0], Bits: b[1], TOS: b[3], Table: b[4], Protocol: b[5], Scope: b[6], Type: b[7],
		Flags: native.Uint32(b[8:]),
	}, true
}

// ParseRoute reads a route of the main table as the kernel tells it; false for
// messages that are about something else.
func ParseRoute(b []byte) (felix.Route, RouteHeader, bool) {
	h, ok := parseHeader(b)
	if !ok || h.Table != unix.RT_TABLE_MAIN || h.Family != unix.AF_INET && h.Family != unix.AF_INET6 {
		return felix.Route{}, h, false
	}
	addr := netip.IPv4Unspecified()
	if h.Family == unix.AF_INET6 {
		addr = netip.IPv6Unspecified()
	}
	r := felix.Route{NextHopGroup: &felix.NextHopGroup{LinkScope: h.Scope == unix.RT_SCOPE_LINK}}
	var single felix.NextHop
	Attrs(b[unix.SizeofRtMsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.RTA_DST:
			addr, _ = netip.AddrFromSlice(data)
		case unix.RTA_PRIORITY:
			r.Metric = int(Uint32(data))
		case unix.RTA_PREFSRC:
			r.Source, _ = netip.AddrFromSlice(data)
		case unix.RTA_OIF:
			single.Link = int(Uint32(data))
		case unix.RTA_GATEWAY, unix.RTA_VIA:
			single.Gateway = parseGateway(kind, data)
		case unix.RTA_MULTIPATH:
			r.NextHops = parseMultipath(data)
		}
	})
	r.Prefix = netip.PrefixFrom(addr, int(h.Bits))
	switch h.Type {
	case unix.RTN_BLACKHOLE:
		r.Type, r.NextHops = felix.Blackhole, nil
	case unix.RTN_UNREACHABLE:
		r.Type, r.NextHops = felix.Unreachable, nil
	case unix.RTN_UNICAST:
		if r.NextHops == nil {
			single.OnLink = h.Flags&unix.RTNH_F_ONLINK != 0
			r.NextHops = []felix.NextHop{single}
		}
	default:
		r.Type = OtherRouteType
	}
	return r, h, r.Prefix.IsValid()
}

func parseGateway(kind uint16, data []byte) netip.Addr {
	if kind == unix.RTA_VIA && len(data) > 2 {
		data = data[2:]
	}
	a, _ := netip.AddrFromSlice(data)
	return a
}

func parseMultipath(b []byte) []felix.NextHop {
	var hops []felix.NextHop
	for len(b) >= unix.SizeofRtNexthop {
		n := int(native.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		h := felix.NextHop{OnLink: b[2]&unix.RTNH_F_ONLINK != 0, Link: int(native.Uint32(b[4:]))}
		Attrs(b[unix.SizeofRtNexthop:n], func(kind uint16, data []byte) {
			if kind == unix.RTA_GATEWAY || kind == unix.RTA_VIA {
				h.Gateway = parseGateway(kind, data)
			}
		})
		hops = append(hops, h)
		b = b[min(align(n), len(b)):]
	}
	slices.SortFunc(hops, felix.NextHop.Compare)
	return hops
}
