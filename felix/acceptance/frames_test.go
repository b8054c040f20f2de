package acceptance

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// Frames as whoever may open a packet socket (CAP_NET_RAW) can send them.

// frame is Ethernet.
func frame(to, from net.HardwareAddr, kind uint16, payload []byte) []byte {
	return slices.Concat(to, from, binary.BigEndian.AppendUint16(nil, kind), payload)
}

// packet is IP of the addresses' family.
func packet(from, to netip.Addr, proto byte, payload []byte) []byte {
	if from.Is4() {
		b := []byte{0x45, 0, 0, 0, 0, 0, 0, 0, 64, proto, 0, 0}
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		b = slices.Concat(b, from.AsSlice(), to.AsSlice())
		binary.BigEndian.PutUint16(b[10:], checksum(b))
		return append(b, payload...)
	}
	b := []byte{0x60, 0, 0, 0, 0, 0, proto, 255} // the hop limit that neighbour discovery has
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	return slices.Concat(b, from.AsSlice(), to.AsSlice(), payload)
}

// checksum is that of IP (RFC 1071).
func checksum(parts ...[]byte) uint16 {
	b := slices.Concat(parts...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	sum := uint32(0)
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// upper is a packet whose payload has its checksum, over addresses too, at a place.
func upper(from, to netip.Addr, proto byte, at int, payload []byte) []byte {
	pseudo := slices.Concat(from.AsSlice(), to.AsSlice(), []byte{byte(len(payload) >> 8), byte(len(payload)), 0, proto})
	if proto == unix.IPPROTO_ICMP {
		pseudo = nil
	}
	binary.BigEndian.PutUint16(payload[at:], checksum(pseudo, payload))
	return packet(from, to, proto, payload)
}

func icmp6(from, to netip.Addr, kind byte, body ...byte) []byte {
	return upper(from, to, unix.IPPROTO_ICMPV6, 2, append([]byte{kind, 0, 0, 0}, body...))
}

// segment asks for a TCP connection, datagram has no payload.
func segment(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	b[12], b[13], b[14] = 5<<4, 2, 0x40 // header length, SYN, window
	return upper(from, to, unix.IPPROTO_TCP, 16, b)
}

func datagram(from, to netip.Addr, port uint16) []byte {
	b := make([]byte, 8)
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], port)
	b[5] = 8 // length
	return upper(from, to, unix.IPPROTO_UDP, 6, b)
}

// arp is a request (1) or an answer (2).
func arp(op byte, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	return slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, op}, mac, sender.AsSlice(), make([]byte, 6), target.AsSlice())
}

// sendFrames writes frames to a link of a namespace.
func sendFrames(t *testing.T, ns *nstest.NS, link string, frames ...[]byte) {
	t.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	fd := -1
	if err := in.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	to := &unix.SockaddrLinklayer{Ifindex: ns.Index(link)}
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, to); err != nil {
			t.Fatal(err)
		}
	}
}
