package route

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// key is what the kernel tells routes of a table apart by, as far as we write
// them.
type key struct {
	prefix netip.Prefix
	metric int
}

func keyOf(r felix.Route) key { return key{r.Prefix, r.Metric} }

// appendRoute writes the body of an RTM_NEWROUTE.
func appendRoute(b []byte, r felix.Route) []byte {
	kind, scope := byte(unix.RTN_UNICAST), byte(unix.RT_SCOPE_UNIVERSE)
	switch r.Type {
	case felix.Unicast:
	case felix.Blackhole:
		kind = unix.RTN_BLACKHOLE
	case felix.Unreachable:
		kind = unix.RTN_UNREACHABLE
	}
	if r.LinkScope {
		scope = unix.RT_SCOPE_LINK
	}
	var flags uint32
	if len(r.NextHops) == 1 && r.NextHops[0].OnLink {
		flags = unix.RTNH_F_ONLINK
	}
	b = appendHeader(b, r.Prefix, scope, kind, flags)
	b = nl.AppendAttr32(b, unix.RTA_PRIORITY, uint32(r.Metric))
	if r.Source.IsValid() {
		b = nl.AppendAttr(b, unix.RTA_PREFSRC, r.Source.AsSlice())
	}
	if len(r.NextHops) == 1 {
		b = appendGateway(b, r.Prefix, r.NextHops[0].Gateway)
		return nl.AppendAttr32(b, unix.RTA_OIF, uint32(r.NextHops[0].Link))
	}
	return appendMultipath(b, r)
}

// appendDelete writes the body of an RTM_DELROUTE: any type, any scope, any
// next hop, but only our protocol.
func appendDelete(b []byte, k key) []byte {
	b = appendHeader(b, k.prefix, unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC, 0)
	return nl.AppendAttr32(b, unix.RTA_PRIORITY, uint32(k.metric))
}

// appendEvict writes the body of an RTM_DELROUTE for a route of another
// protocol over one link.
func appendEvict(b []byte, r felix.ExternalRoute) []byte {
	start := len(b)
	b = appendHeader(b, r.Prefix, unix.RT_SCOPE_NOWHERE, unix.RTN_UNSPEC, 0)
	b[start+5] = byte(r.Protocol) // rtm_protocol
	b = nl.AppendAttr32(b, unix.RTA_PRIORITY, uint32(r.Metric))
	return nl.AppendAttr32(b, unix.RTA_OIF, uint32(r.Link))
}

func appendHeader(b []byte, p netip.Prefix, scope, kind byte, flags uint32) []byte {
	b = append(b, nl.Family(p.Addr()), byte(p.Bits()), 0, 0,
		unix.RT_TABLE_MAIN, model.RouteProtocol, scope, kind)
	b = binary.NativeEndian.AppendUint32(b, flags)
	return nl.AppendAttr(b, unix.RTA_DST, p.Addr().AsSlice())
}

func appendGateway(b []byte, p netip.Prefix, gw netip.Addr) []byte {
	switch {
	case !gw.IsValid():
		return b
	case gw.Is4() == p.Addr().Is4():
		return nl.AppendAttr(b, unix.RTA_GATEWAY, gw.AsSlice())
	default: // RFC 8950: an IPv4 prefix by way of an IPv6 neighbour
		via := binary.NativeEndian.AppendUint16(nil, uint16(nl.Family(gw)))
		return nl.AppendAttr(b, unix.RTA_VIA, append(via, gw.AsSlice()...))
	}
}

func appendMultipath(b []byte, r felix.Route) []byte {
	if len(r.NextHops) == 0 {
		return b
	}
	b, outer := nl.BeginNested(b, unix.RTA_MULTIPATH)
	for _, h := range r.NextHops {
		start := len(b)
		var flags byte
		if h.OnLink {
			flags = unix.RTNH_F_ONLINK
		}
		b = append(b, 0, 0, flags, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(h.Link))
		b = appendGateway(b, r.Prefix, h.Gateway)
		binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	}
	return nl.EndNested(b, outer)
}

// same reports whether the kernel's route k is what w wants. Device names are
// for people, and IPv6 routes have no scope in the kernel.
func same(k, w felix.Route) bool {
	if k.NextHopGroup == w.NextHopGroup {
		return k.Metric == w.Metric
	}
	if k.Type != w.Type || k.Metric != w.Metric || k.Source != w.Source || len(k.NextHops) != len(w.NextHops) {
		return false
	}
	if k.LinkScope != w.LinkScope && w.Prefix.Addr().Is4() {
		return false
	}
	for i, h := range k.NextHops {
		o := w.NextHops[i]
		if h.Gateway != o.Gateway || h.Link != o.Link || h.OnLink != o.OnLink {
			return false
		}
	}
	return true
}
