package policynft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// Attributes of linux/netfilter/nfnetlink_conntrack.h that x/sys lacks.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2
	ctStats  = unix.NFNL_SUBSYS_CTNETLINK<<8 | 5

	ctaStatsEntries = 1
	ctaStatsMax     = 2
	nfgenmsg        = 4 // bytes of struct nfgenmsg

	ctaTupleOrig  = 1
	ctaTupleReply = 2
	ctaZone       = 18
	ctaFilter     = 25
	ctaTupleIP    = 1
	ipv4Source    = 1 // CTA_IP_V4_SRC
	ipv6Source    = 3 // CTA_IP_V6_SRC
	filterSource  = 1 // CTA_FILTER_F_CTA_IP_SRC, in CTA_FILTER_ORIG_FLAGS (1) or …REPLY_FLAGS (2)
)

// Forget ends the connections that the kernel knows of some addresses, opened by
// them or to them: who gets such an address next has none that policy let pass for
// another. It returns how many there were, and errors.ErrUnsupported if the kernel
// does not tell of connections (no nf_conntrack_netlink).
func (s *Sink) Forget(addresses []netip.Addr) (int, error) {
	if len(addresses) == 0 {
		return 0, nil
	}
	of := make(map[netip.Addr]bool, len(addresses))
	for _, a := range addresses {
		of[a] = true
	}
	return s.forget(func(a netip.Addr) bool { return of[a] }, addresses)
}

// ForgetAll is Forget of whatever addresses.
func (s *Sink) ForgetAll(of func(netip.Addr) bool) (int, error) { return s.forget(of, nil) }

// forget ends the connections of addresses, which are listed if they are few.
func (s *Sink) forget(of func(netip.Addr) bool, few []netip.Addr) (int, error) {
	conn, err := nl.Dial(s.Namespace(), unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	switch have, room := connectionCount(conn); {
	case have == 0 && room > 0:
		return 0, nil
	case have*oneWalk < room:
		few = nil
	}
	found := connections{of: of, named: map[string]byte{}}
	for _, req := range requests(few) {
		err := conn.Dump(req, func() {}, found.take)
		if errors.Is(err, unix.EINVAL) {
			err = errors.Join(errors.ErrUnsupported, err)
		}
		if err != nil {
			return 0, fmt.Errorf("list connections: %w", err)
		}
	}
	var gone nl.Batch
	for name, family := range found.named {
		gone.Add(ctDelete, 0, func(b []byte) []byte { return append(append(b, family, unix.NFNETLINK_V0, 0, 0), name...) })
	}
	return gone.Len(), conn.Each(&gone, func(_ int, err error) error {
		if errors.Is(err, unix.ENOENT) {
			return nil // it ended by itself
		}
		return fmt.Errorf("end a connection: %w", err)
	})
}

// oneWalk is how many buckets of its table the kernel passes while it tells of one
// connection. The table has as many as it may have connections, or a quarter (before Linux 5.15).
const oneWalk = 32

// connectionCount asks how many connections there are in the namespace, and how many there may be: 0 of
// 0 if it is not known.
func connectionCount(conn *nl.Conn) (have, room uint64) {
	answer, err := conn.Get(ctStats, func(b []byte) []byte { return append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0) })
	if err != nil || len(answer) < nfgenmsg {
		return 0, 0
	}
	nl.Attrs(answer[nfgenmsg:], func(kind uint16, data []byte) {
		switch {
		case len(data) < 4:
		case kind == ctaStatsEntries:
			have = uint64(binary.BigEndian.Uint32(data))
		case kind == ctaStatsMax:
			room = uint64(binary.BigEndian.Uint32(data))
		}
	})
	return have, room
}

// requests ask for connections: of IPv4 for those of one address, which the kernel
// finds; of IPv6 for all, as it finds the wrong ones there (Linux 6.18 takes those
// whose address differs). Each is a walk through the whole table, so for more than the
// addresses of a pod one asks for all.
func requests(addresses []netip.Addr) (out [][]byte) {
	const ofAPod = 2
	if len(addresses) == 0 || len(addresses) > ofAPod {
		return [][]byte{nl.EndMessage(request(unix.AF_UNSPEC), 0)}
	}
	all6 := false
	for _, a := range addresses {
		if !a.Is4() {
			all6 = true
			continue
		}
		// The source of what answers is the address after services are resolved.
		for _, tuple := range []uint16{ctaTupleOrig, ctaTupleReply} {
			out = append(out, nl.EndMessage(withSource(request(unix.AF_INET), a, tuple), 0))
		}
	}
	if all6 {
		out = append(out, nl.EndMessage(request(unix.AF_INET6), 0))
	}
	return out
}

func request(family byte) []byte {
	return append(nl.AppendHeader(nil, ctGet, 0), family, unix.NFNETLINK_V0, 0, 0)
}

// withSource asks for an address as the source of a tuple. A kernel before Linux 5.8
// lists all.
func withSource(req []byte, a netip.Addr, tuple uint16) []byte {
	req, outer := nl.BeginNested(req, tuple)
	req, inner := nl.BeginNested(req, ctaTupleIP)
	req = nl.EndNested(nl.EndNested(nl.AppendAttr(req, ipv4Source, a.AsSlice()), inner), outer)
	req, outer = nl.BeginNested(req, ctaFilter)
	return nl.EndNested(nl.AppendAttr32(req, tuple, filterSource), outer)
}

// connections are those of some addresses.
type connections struct {
	of    func(netip.Addr) bool
	named map[string]byte // the attributes that name one, with its family
}

// take looks at a connection.
func (c *connections) take(m nl.Message) {
	if len(m.Data) < nfgenmsg {
		return
	}
	var name []byte
	ours := false
	nl.Attrs(m.Data[nfgenmsg:], func(kind uint16, data []byte) {
		switch kind {
		case ctaTupleOrig, ctaTupleReply:
			ours = ours || c.of(sourceOf(data))
		}
		switch kind {
		case ctaTupleOrig:
			name = nl.AppendAttr(name, unix.NLA_F_NESTED|kind, data)
		case ctaZone:
			name = nl.AppendAttr(name, kind, data)
		}
	})
	if ours {
		c.named[string(name)] = m.Data[0]
	}
}

// sourceOf is the source address of a tuple.
func sourceOf(tuple []byte) (out netip.Addr) {
	nl.Attrs(tuple, func(kind uint16, ip []byte) {
		if kind != ctaTupleIP {
			return
		}
		nl.Attrs(ip, func(kind uint16, data []byte) {
			if kind == ipv4Source || kind == ipv6Source {
				out, _ = netip.AddrFromSlice(data)
			}
		})
	})
	return out
}
