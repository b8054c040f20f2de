package nl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// Message is a received netlink message; Data is valid until the next receive.
type Message struct {
	Type, Flags uint16
	Seq, PortID uint32
	Data        []byte // past the netlink header
}

// AppendHeader begins a message; EndMessage completes it. kind and flags are
// nlmsg_type and nlmsg_flags; NLM_F_REQUEST is added.
func AppendHeader(b []byte, kind, flags uint16) []byte {
	var h [unix.NLMSG_HDRLEN]byte
	native.PutUint16(h[4:], kind)
	native.PutUint16(h[6:], flags|unix.NLM_F_REQUEST)
	return append(b, h[:]...)
}

// EndMessage writes the length of the message that begins at start.
func EndMessage(b []byte, start int) []byte {
	native.PutUint32(b[start:], uint32(len(b)-start))
	return pad(b)
}

// AppendAttr appends an attribute.
func AppendAttr(b []byte, kind uint16, data []byte) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+len(data)))
	b = native.AppendUint16(b, kind)
	b = append(b, data...)
	return pad(b)
}

// AppendAttr32 appends an attribute with a 32 bit number in the host's order.
func AppendAttr32(b []byte, kind uint16, v uint32) []byte {
	b = native.AppendUint16(b, uint16(unix.SizeofRtAttr+4))
	b = native.AppendUint16(b, kind)
	return native.AppendUint32(b, v)
}

// BeginNested opens a nested attribute, EndNested closes it. Linux 7.1 refuses some without
// the flag.
func BeginNested(b []byte, kind uint16) ([]byte, int) {
	start := len(b)
	b = native.AppendUint16(b, 0)
	return native.AppendUint16(b, unix.NLA_F_NESTED|kind), start
}

// EndNested writes the length of the nested attribute that begins at start.
func EndNested(b []byte, start int) []byte {
	native.PutUint16(b[start:], uint16(len(b)-start))
	return b
}

// Attrs calls each for every attribute in b. Broken lengths end it early: the
// kernel does not send them.
func Attrs(b []byte, each func(kind uint16, data []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		n := int(native.Uint16(b))
		kind := native.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if n < unix.SizeofRtAttr || n > len(b) {
			return
		}
		each(kind, b[unix.SizeofRtAttr:n])
		b = b[min(align(n), len(b)):]
	}
}

// Uint32 reads a number in the host's order, 0 when it is too short.
func Uint32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}

// messages splits a datagram.
func messages(b []byte, each func(Message) bool) {
	for len(b) >= unix.NLMSG_HDRLEN {
		n := int(native.Uint32(b))
		if n < unix.NLMSG_HDRLEN || n > len(b) {
			return
		}
		m := Message{
			Type: native.Uint16(b[4:]), Flags: native.Uint16(b[6:]),
			Seq: native.Uint32(b[8:]), PortID: native.Uint32(b[12:]),
			Data: b[unix.NLMSG_HDRLEN:n],
		}
		if !each(m) {
			return
		}
		b = b[min(align(n), len(b)):]
	}
}

func align(n int) int { return (n + 3) &^ 3 }

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
