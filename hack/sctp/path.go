package sctp

import (
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"time"
)

// path carries an association's packets between two ports. pion reads and writes
// whole packets from and to it, always between the ports of WebRTC.
type path struct {
	net.Conn    // for the calls that pion has no use for here
	remote      net.Addr
	local, peer uint16
	in          chan []byte
	done        chan struct{}
	once        sync.Once
	write       func([]byte) (int, error)
	closed      func() error
}

func newPath(raw net.Conn, remote net.Addr, local, peer uint16) *path {
	return &path{Conn: raw, remote: remote, local: local, peer: peer, in: make(chan []byte, 64), done: make(chan struct{})}
}

// pionPort is the port that pion gives both ends.
const pionPort = 5000

// deliver hands pion a packet that is this association's.
func (p *path) deliver(packet []byte) {
	if source(packet) != p.peer || destination(packet) != p.local {
		return
	}
	readdress(packet, pionPort, pionPort)
	select {
	case p.in <- packet:
	case <-p.done:
	default: // a full queue loses packets, and SCTP sends them again
	}
}

func (p *path) Read(b []byte) (int, error) {
	select {
	case packet := <-p.in:
		return copy(b, packet), nil
	case <-p.done:
		return 0, io.EOF
	}
}

func (p *path) Write(b []byte) (int, error) {
	packet := append([]byte(nil), b...)
	readdress(packet, p.local, p.peer)
	return p.write(packet)
}

func (p *path) Close() error {
	var err error
	p.once.Do(func() {
		close(p.done)
		err = p.closed()
	})
	return err
}

func (p *path) SetReadDeadline(time.Time) error { return nil }

// The common header of RFC 9260, section 3.1: ports, verification tag, checksum.
const header = 12

func source(packet []byte) uint16      { return binary.BigEndian.Uint16(packet) }
func destination(packet []byte) uint16 { return binary.BigEndian.Uint16(packet[2:]) }

// isInit says that a packet asks for a new association.
func isInit(packet []byte) bool { return len(packet) > header && packet[header] == 1 }

// readdress writes the ports, and the checksum again.
func readdress(packet []byte, from, to uint16) {
	binary.BigEndian.PutUint16(packet, from)
	binary.BigEndian.PutUint16(packet[2:], to)
	binary.LittleEndian.PutUint32(packet[8:], 0)
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
}

// receive hands on every packet of a raw socket, without the header of IP, until it is closed.
func receive(raw *net.IPConn, to func(net.Addr, []byte)) {
	buffer := make([]byte, 65536)
	for {
		n, from, err := raw.ReadFromIP(buffer)
		if err != nil {
			return
		}
		if n > header {
			to(from, append([]byte(nil), buffer[:n]...))
		}
	}
}
