package nl

import (
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/pkg/model"
)

// Indexes of per-interface IPv4 settings (IPV4_DEVCONF_*, linux/ip.h).
const (
	ConfForwarding      = 1
	ConfProxyARP        = 3
	ConfAcceptRedirects = 4
	ConfSendRedirects   = 6
	ConfRPFilter        = 8
)

const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE

// Requests is a batch whose refusals have names. The zero value is empty.
type Requests struct {
	Batch
	names []string
}

// Name adds a request with what to call it in an error.
func (r *Requests) Name(name string, kind, flags uint16, build func([]byte) []byte) {
	r.names = append(r.names, name)
	r.Add(kind, flags, build)
}

// Do sends the requests, goes on after a refusal, and joins the refusals.
func (r *Requests) Do(c *Conn) error {
	return c.Each(&r.Batch, func(i int, err error) error { return fmt.Errorf("%s: %w", r.names[i], err) })
}

// GetLink asks for a link by name; the error is unix.ENODEV when there is none.
func (c *Conn) GetLink(name string) (model.Link, error) {
	b, err := c.Get(unix.RTM_GETLINK, func(b []byte) []byte {
		b = append(b, make([]byte, unix.SizeofIfInfomsg)...)
		return AppendAttr(b, unix.IFLA_IFNAME, append([]byte(name), 0))
	})
	if err != nil {
		return model.Link{}, fmt.Errorf("get link %s: %w", name, err)
	}
	return ParseLink(b), nil
}

// LinkHeader appends a struct ifinfomsg.
func LinkHeader(b []byte, index int, flags, change uint32) []byte {
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, change)
}

// Replace makes a request overwrite what is in its place.
const Replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

// Address adds a host prefix, a link-local address with its /64.
func (r *Requests) Address(index int, a netip.Addr) {
	r.Name("add address "+a.String(), unix.RTM_NEWADDR, Replace, func(b []byte) []byte {
		// No duplicate detection: the address is known to be this pod's, and
		// it would be of no use for a second.
		flags, scope := byte(unix.IFA_F_PERMANENT), byte(unix.RT_SCOPE_UNIVERSE)
		if a.Is6() {
			flags |= unix.IFA_F_NODAD
		}
		bits := a.BitLen()
		if a.IsLinkLocalUnicast() {
			bits, scope = 64, unix.RT_SCOPE_LINK
		}
		b = append(b, Family(a), byte(bits), flags, scope)
		b = native.AppendUint32(b, uint32(index))
		b = AppendAttr(b, unix.IFA_LOCAL, a.AsSlice())
		return AppendAttr(b, unix.IFA_ADDRESS, a.AsSlice())
	})
}

// Peering adds a host address that the kernel chooses as no source by itself, and
// makes no route to but its own: scope host, or deprecated (RFC 6724 section 5,
// rule 3). Many links may have it.
func (r *Requests) Peering(index int, a netip.Addr) {
	r.Name("add peering address "+a.String(), unix.RTM_NEWADDR, Replace, func(b []byte) []byte {
		scope, flags := byte(unix.RT_SCOPE_HOST), uint32(unix.IFA_F_PERMANENT)
		if a.Is6() {
			scope, flags = unix.RT_SCOPE_UNIVERSE, flags|unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE
		}
		b = addressHeader(b, index, a, byte(flags), scope)
		b = AppendAttr32(b, unix.IFA_FLAGS, flags)
		if a.Is4() {
			return b
		}
		const forever = 1<<32 - 1
		lifetimes := native.AppendUint32(nil, 0) // struct ifa_cacheinfo: preferred for no time
		lifetimes = native.AppendUint32(lifetimes, forever)
		return AppendAttr(b, unix.IFA_CACHEINFO, append(lifetimes, make([]byte, 8)...))
	})
}

// NoAddress removes a host address.
func (r *Requests) NoAddress(index int, a netip.Addr) {
	r.Name("remove address "+a.String(), unix.RTM_DELADDR, 0, func(b []byte) []byte {
		return addressHeader(b, index, a, 0, 0)
	})
}

// addressHeader appends a struct ifaddrmsg for a host address, and the address.
func addressHeader(b []byte, index int, a netip.Addr, flags, scope byte) []byte {
	b = append(b, Family(a), byte(a.BitLen()), flags, scope)
	b = native.AppendUint32(b, uint32(index))
	b = AppendAttr(b, unix.IFA_LOCAL, a.AsSlice())
	return AppendAttr(b, unix.IFA_ADDRESS, a.AsSlice())
}

// Neighbour adds a permanent neighbour entry.
func (r *Requests) Neighbour(index int, a netip.Addr, mac net.HardwareAddr) {
	r.Name("add neighbour "+a.String(), unix.RTM_NEWNEIGH, Replace, func(b []byte) []byte {
		b = append(b, Family(a), 0, 0, 0)
		b = native.AppendUint32(b, uint32(index))
		b = native.AppendUint16(b, unix.NUD_PERMANENT)
		b = append(b, 0, 0)
		b = AppendAttr(b, unix.NDA_DST, a.AsSlice())
		return AppendAttr(b, unix.NDA_LLADDR, mac)
	})
}

// Up sets a link up.
func (r *Requests) Up(index int) {
	r.Name("set link up", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return LinkHeader(b, index, unix.IFF_UP, unix.IFF_UP)
	})
}

// Settings sets per-interface IPv4 settings.
func (r *Requests) Settings(index int, conf map[uint16]uint32) {
	r.Name("set IPv4 settings of the link", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		b = LinkHeader(b, index, 0, 0)
		b, spec := BeginNested(b, unix.IFLA_AF_SPEC)
		b, inet := BeginNested(b, unix.AF_INET)
		b, all := BeginNested(b, unix.IFLA_INET_CONF)
		for k := uint16(0); k < 64; k++ {
			if v, ok := conf[k]; ok {
				b = AppendAttr32(b, k, v)
			}
		}
		return EndNested(EndNested(EndNested(b, all), inet), spec)
	})
}

// NoAutoLinkLocal keeps the kernel from making a link-local address of its own,
// which would be in doubt for a second: ours is added instead.
func (r *Requests) NoAutoLinkLocal(index int) {
	r.Name("set address mode of the link", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		b = LinkHeader(b, index, 0, 0)
		b, spec := BeginNested(b, unix.IFLA_AF_SPEC)
		b, inet6 := BeginNested(b, unix.AF_INET6)
		b = AppendAttr(b, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
		return EndNested(EndNested(b, inet6), spec)
	})
}

// NoProxyDelay has the node answer ARP for the gateway at once instead of after a
// random time of up to 0.8 s.
func (r *Requests) NoProxyDelay(index int) {
	const (
		ndtaName, ndtaParms       = 1, 6
		ndtpaIfindex, ndtpaProxyD = 1, 13
	)
	r.Name("set proxy delay of the link", unix.RTM_SETNEIGHTBL, unix.NLM_F_REPLACE, func(b []byte) []byte {
		b = append(b, unix.AF_INET, 0, 0, 0) // ndtmsg
		b = AppendAttr(b, ndtaName, []byte("arp_cache\x00"))
		b, parms := BeginNested(b, ndtaParms)
		b = AppendAttr32(b, ndtpaIfindex, uint32(index))
		b = AppendAttr(b, ndtpaProxyD, native.AppendUint64(nil, 0)) // ms
		return EndNested(b, parms)
	})
}

// Family is the address family of a.
func Family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// LinkLocal is the EUI-64 address of mac (RFC 4291 appendix A).
func LinkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}

// DeleteAddress takes an address away.
func (r *Requests) DeleteAddress(index int, p netip.Prefix) {
	r.Name("delete address "+p.String(), unix.RTM_DELADDR, 0, func(b []byte) []byte {
		b = append(b, Family(p.Addr()), byte(p.Bits()), 0, 0)
		b = native.AppendUint32(b, uint32(index))
		return AppendAttr(b, unix.IFA_LOCAL, p.Addr().AsSlice())
	})
}

// DeleteNeighbour takes a neighbour entry away.
func (r *Requests) DeleteNeighbour(index int, a netip.Addr) {
	r.Name("delete neighbour "+a.String(), unix.RTM_DELNEIGH, 0, func(b []byte) []byte {
		b = append(b, Family(a), 0, 0, 0)
		b = native.AppendUint32(b, uint32(index))
		b = append(b, 0, 0, 0, 0)
		return AppendAttr(b, unix.NDA_DST, a.AsSlice())
	})
}

// DumpAll dumps everything of a kind whose fixed part is size bytes of zeros in
// the request. reset is called before each attempt.
func (c *Conn) DumpAll(kind uint16, size int, reset func(), each func([]byte)) error {
	req := AppendHeader(nil, kind, unix.NLM_F_DUMP)
	req = EndMessage(append(req, make([]byte, size)...), 0)
	return c.Dump(req, reset, func(m Message) {
		if len(m.Data) >= size {
			each(m.Data)
		}
	})
}
