package radv

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

const (
	solicitation  = 133
	advertisement = 134
	// hopLimit of what comes from the link itself (RFC 4861 sections 6.1.1, 6.1.2).
	hopLimit = 255
)

var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// socket hears solicitations and sends advertisements.
type socket struct {
	file *os.File
	raw  syscall.RawConn
}

func open(ns *nl.NS) (*socket, error) {
	fd := -1
	if err := ns.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMPV6)
		return err
	}); err != nil {
		return nil, fmt.Errorf("open raw ICMPv6 socket: %w", err)
	}
	s := &socket{file: os.NewFile(uintptr(fd), "icmpv6")}
	only := unix.ICMPv6Filter{}
	for i := range only.Data { // a bit that is set blocks its type
		only.Data[i] = ^uint32(0)
	}
	only.Data[solicitation/32] &^= 1 << (solicitation % 32)
	var err error
	if s.raw, err = s.file.SyscallConn(); err == nil {
		err = errors.Join(
			unix.SetsockoptICMPv6Filter(fd, unix.SOL_ICMPV6, unix.ICMPV6_FILTER, &only),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, hopLimit),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_HOPS, hopLimit),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MULTICAST_LOOP, 0),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT, 1))
	}
	if err != nil {
		_ = s.file.Close()
		return nil, fmt.Errorf("set up raw ICMPv6 socket: %w", err)
	}
	return s, nil
}

// join has solicitations on a link heard.
func (s *socket) join(link int) error {
	err := s.group(unix.IPV6_JOIN_GROUP, link)
	if errors.Is(err, unix.EADDRINUSE) {
		return nil
	}
	return err
}

// leave undoes join. A link that is gone has left.
func (s *socket) leave(link int) { _ = s.group(unix.IPV6_LEAVE_GROUP, link) }

func (s *socket) group(verb, link int) (err error) {
	m := unix.IPv6Mreq{Multiaddr: allRouters.As16(), Interface: uint32(link)}
	if gone := s.raw.Control(func(fd uintptr) { err = unix.SetsockoptIPv6Mreq(int(fd), unix.SOL_IPV6, verb, &m) }); gone != nil {
		return gone
	}
	return err
}

// send advertises the node on a link, to all or to one.
func (s *socket) send(link int, mac string, to netip.Addr) (err error) {
	message := advertise(mac)
	if gone := s.raw.Write(func(fd uintptr) bool {
		err = unix.Sendto(int(fd), message, 0, &unix.SockaddrInet6{ZoneId: uint32(link), Addr: to.As16()})
		return !errors.Is(err, unix.EAGAIN)
	}); gone != nil {
		return gone
	}
	return err
}

// advertise is an advertisement (RFC 4861 section 4.2) of a router that is
// nobody's default one, with its link-layer address if that is an Ethernet one.
// The kernel adds the checksum.
func advertise(mac string) []byte {
	m := make([]byte, 16, 24) // lifetime and all else: unspecified
	m[0] = advertisement
	if hw, err := net.ParseMAC(mac); err == nil && len(hw) == 6 {
		m = append(append(m, 1, 1), hw...) // source link-layer address, in units of 8 octets
	}
	return m
}

// hear waits for a solicitation that is valid (RFC 4861 section 6.1.1), and
// returns by which link it came and who asks, unspecified if it does not say.
func (s *socket) hear() (link int, from netip.Addr, err error) {
	var message [1500]byte
	var control [128]byte
	for {
		var n, nc int
		var sender unix.Sockaddr
		gone := s.raw.Read(func(fd uintptr) bool {
			n, nc, _, sender, err = unix.Recvmsg(int(fd), message[:], control[:], 0)
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		})
		if err := errors.Join(gone, err); err != nil {
			return 0, netip.Addr{}, err
		}
		link, hops := origin(control[:nc])
		sa, ok := sender.(*unix.SockaddrInet6)
		if ok && n >= 8 && message[0] == solicitation && message[1] == 0 && hops == hopLimit && link > 0 {
			return link, netip.AddrFrom16(sa.Addr), nil
		}
	}
}

// origin reads the link and the hop limit that the kernel tells of a packet.
func origin(control []byte) (link, hops int) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return 0, 0
	}
	for _, m := range messages {
		switch {
		case m.Header.Level != unix.SOL_IPV6:
		case m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			link = int(binary.NativeEndian.Uint32(m.Data[16:]))
		case m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4:
			hops = int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return link, hops
}
