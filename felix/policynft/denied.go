package policynft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// What of linux/netfilter/nfnetlink_log.h x/sys lacks.
const (
	logPacket     = unix.NFNL_SUBSYS_ULOG << 8
	logConfig     = unix.NFNL_SUBSYS_ULOG<<8 | 1
	logCommand    = 1  // NFULA_CFG_CMD
	logMode       = 2  // NFULA_CFG_MODE
	logTimeout    = 4  // NFULA_CFG_TIMEOUT
	logBind       = 1  // NFULNL_CFG_CMD_BIND
	logCopyPacket = 2  // NFULNL_COPY_PACKET
	logPayload    = 9  // NFULA_PAYLOAD
	logText       = 10 // NFULA_PREFIX
)

// Denied is a packet that was denied.
type Denied struct {
	Denial
	// Source and Destination are the packet's; the ports are 0 where it has none. A
	// packet to a service has the address of the pod behind it.
	Source, Destination netip.AddrPort
	Protocol            uint8
}

// Listen calls each for every denied packet that the kernel hands over, until ctx ends.
// They come within a fifth of a second, at most ten a second of what one rule
// denies; some may be lost. It returns an error as soon as it cannot listen: another
// process does (unix.EPERM), or the kernel has no nfnetlink_log.
func (s *Sink) Listen(ctx context.Context, each func(Denied)) error {
	l, err := nl.Listen(s.Namespace(), unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return err
	}
	defer l.Close()
	take := func(m nl.Message) {
		if d, ok := s.denied(m); ok {
			each(d)
		}
	}
	for _, attr := range []struct {
		kind uint16
		data []byte
	}{
		{logCommand, []byte{logBind}},
		{logMode, []byte{0, 0, 0, logBytes, logCopyPacket, 0}},
		{logTimeout, []byte{0, 0, 0, logDelay}},
	} {
		if err := l.Ask(logConfig, func(b []byte) []byte {
			b = append(b, unix.AF_UNSPEC, unix.NFNETLINK_V0)
			return nl.AppendAttr(binary.BigEndian.AppendUint16(b, LogGroup), attr.kind, attr.data)
		}, take); err != nil {
			return fmt.Errorf("bind nflog group %d: %w", LogGroup, err)
		}
	}
	return l.Follow(ctx, take, func() {})
}

// logDelay is how long the kernel gathers packets, in hundredths of a second.
const logDelay = 20

// denied reads a message of the kernel.
func (s *Sink) denied(m nl.Message) (Denied, bool) {
	const nfgenmsg = 4 // bytes of struct nfgenmsg
	if m.Type != logPacket || len(m.Data) < nfgenmsg {
		return Denied{}, false
	}
	var out Denied
	text, err := "", errors.New("no packet")
	nl.Attrs(m.Data[nfgenmsg:], func(kind uint16, data []byte) {
		switch kind {
		case logPayload:
			err = out.parse(data)
		case logText:
			text = strings.TrimRight(string(data), "\x00")
		}
	})
	known := s.denials.Load()
	if known != nil {
		out.Denial = (*known)[text]
	}
	if out.Direction == "" { // of a rule that has gone meanwhile
		out.Direction, out.By, _ = strings.Cut(text, " ")
	}
	return out, err == nil
}

var errShort = errors.New("the packet is shorter than its headers")

// parse reads the headers of a packet.
func (d *Denied) parse(b []byte) error {
	if len(b) == 0 {
		return errShort
	}
	switch b[0] >> 4 {
	case 4:
		return d.parse4(b)
	case 6:
		return d.parse6(b)
	}
	return fmt.Errorf("IP version %d", b[0]>>4)
}

// parse4 reads an IPv4 header (RFC 791).
func (d *Denied) parse4(b []byte) error {
	length := int(b[0]&15) * 4
	if length < 20 || len(b) < length {
		return errShort
	}
	offset := binary.BigEndian.Uint16(b[6:]) & 0x1fff
	d.Protocol = b[9]
	d.ends(netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[length:], offset == 0)
	return nil
}

// parse6 reads an IPv6 header and those that stand before the transport's (RFC 8200).
func (d *Denied) parse6(b []byte) error {
	if len(b) < 40 {
		return errShort
	}
	src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	next, first := b[6], true
	for b = b[40:]; len(b) >= 8; {
		length := 8 + 8*int(b[1])
		switch next {
		case unix.IPPROTO_FRAGMENT:
			first, length = first && binary.BigEndian.Uint16(b[2:])&^7 == 0, 8
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
		default:
			length = 0
		}
		if length == 0 {
			break
		}
		next, b = b[0], b[min(length, len(b)):]
	}
	d.Protocol = next
	d.ends(src, dst, b, first)
	return nil
}

// ends adds ports to addresses if the transport's header is there and has any.
func (d *Denied) ends(src, dst netip.Addr, transport []byte, first bool) {
	var from, to uint16
	switch d.Protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP:
		if first && len(transport) >= 4 {
			from, to = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
		}
	}
	d.Source, d.Destination = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}

// Dropped counts the packets that were denied in a direction, "ingress" or "egress",
// since the table was made as a whole. 0 as long as there is no table.
func (s *Sink) Dropped(direction string) (uint64, error) { return s.Count(deniedPrefix + direction) }
