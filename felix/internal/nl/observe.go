package nl

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Observe opens, inside ns, a connection for links, addresses, neighbours and routes,
// and a listener to groups beside it. filter makes the listener's program from the
// port of the connection, with which the kernel marks what the connection causes.
func Observe(ns *NS, filter func(port uint32) []unix.SockFilter, groups ...int) (*Conn, *Listener, error) {
	conn, err := Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, nil, err
	}
	events, err := Listen(ns, unix.NETLINK_ROUTE, filter(conn.PortID()), groups...)
	if err != nil {
		conn.Close()
		return nil, nil, err
	}
	return conn, events, nil
}

// FromOthers is a filter that drops what the connection with a port has caused, and
// messages of the types in never.
func FromOthers(port uint32, never ...uint16) []unix.SockFilter {
	out := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}} // nlmsg_type
	for i, t := range never {
		k := uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, t)))
		out = append(out, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: k, Jt: uint8(len(never) - i + 1)})
	}
	own := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, port))
	return append(out,
		unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 12}, // nlmsg_pid
		unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: own, Jf: 1},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff})
}
