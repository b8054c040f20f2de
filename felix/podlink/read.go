package podlink

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// link is what the kernel says of the node's end of a pod's link. The zero
// value has nothing.
type link struct {
	up          bool
	mtu         int // bytes
	peer        int // index of the other end, in its namespace
	nsid        int32
	elsewhere   bool                  // nsid is valid
	reversePath uint32                // rp_filter
	listens     bool                  // to router advertisements or redirects
	addresses   map[netip.Addr]int    // prefix lengths, bits
	learned     []netip.Prefix        // addresses made of router advertisements
	neighbours  map[netip.Addr]string // permanent ones: hardware address
}

const sizeofNdMsg = 12

// read asks for all links with their addresses and neighbours, in three dumps.
func (r *Reconciler) read() (map[int]link, error) {
	out := map[int]link{}
	err := r.conn.DumpAll(unix.RTM_GETLINK, unix.SizeofIfInfomsg, func() { clear(out) }, func(b []byte) {
		l := nl.ParseLink(b)
		have := link{up: l.AdminUp, mtu: l.MTU, addresses: map[netip.Addr]int{}, neighbours: map[netip.Addr]string{}}
		nl.Attrs(b[unix.SizeofIfInfomsg:], func(kind uint16, data []byte) {
			switch kind {
			case unix.IFLA_LINK:
				have.peer = int(nl.Uint32(data))
			case unix.IFLA_LINK_NETNSID:
				have.nsid, have.elsewhere = int32(nl.Uint32(data)), true
			case unix.IFLA_AF_SPEC:
				have.listens, have.reversePath = listens(data), filters(data)
			}
		})
		out[l.Index] = have
	})
	if err != nil {
		return nil, err
	}
	err = r.conn.DumpAll(unix.RTM_GETADDR, unix.SizeofIfAddrmsg, func() {}, func(b []byte) {
		if l, there := out[int(nl.Uint32(b[4:]))]; there {
			p := nl.ParseAddress(b)
			l.addresses[p.Addr()] = p.Bits()
			if flags := b[2]; p.Addr().Is6() && flags&unix.IFA_F_PERMANENT == 0 {
				l.learned = append(l.learned, p)
				out[int(nl.Uint32(b[4:]))] = l
			}
		}
	})
	if err != nil {
		return nil, err
	}
	return out, r.conn.DumpAll(unix.RTM_GETNEIGH, sizeofNdMsg, func() {}, func(b []byte) {
		l, there := out[int(nl.Uint32(b[4:]))]
		if !there || binary.NativeEndian.Uint16(b[8:])&unix.NUD_PERMANENT == 0 {
			return
		}
		var dst netip.Addr
		var mac net.HardwareAddr
		nl.Attrs(b[sizeofNdMsg:], func(kind uint16, data []byte) {
			switch kind {
			case unix.NDA_DST:
				dst, _ = netip.AddrFromSlice(data)
			case unix.NDA_LLADDR:
				mac = data
			}
		})
		l.neighbours[dst] = mac.String()
	})
}

// listens reads IFLA_AF_SPEC: does the link take router advertisements or
// redirects of IPv6?
func listens(spec []byte) (yes bool) {
	const inet6Conf, acceptRA, acceptRedirects = 2, 3, 4 // IFLA_INET6_CONF, DEVCONF_*: places in an array of int32
	nl.Attrs(spec, func(family uint16, data []byte) {
		if family != unix.AF_INET6 {
			return
		}
		nl.Attrs(data, func(kind uint16, conf []byte) {
			if kind == inet6Conf && len(conf) >= 4*(acceptRedirects+1) {
				yes = nl.Uint32(conf[4*acceptRA:]) != 0 || nl.Uint32(conf[4*acceptRedirects:]) != 0
			}
		})
	})
	return yes
}

// filters reads IFLA_AF_SPEC: the link's rp_filter of IPv4.
func filters(spec []byte) (value uint32) {
	nl.Attrs(spec, func(family uint16, data []byte) {
		if family != unix.AF_INET {
			return
		}
		nl.Attrs(data, func(kind uint16, conf []byte) {
			if kind == unix.IFLA_INET_CONF && len(conf) >= 4*nl.ConfRPFilter {
				value = nl.Uint32(conf[4*(nl.ConfRPFilter-1):]) // they count from 1
			}
		})
	})
	return value
}
