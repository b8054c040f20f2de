package nl

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrInterrupted is returned when the kernel's tables changed under every
// attempt at a dump.
var ErrInterrupted = errors.New("dump interrupted by changes")

const (
	dumpAttempts = 10
	bufferBytes  = 4 << 20 // asked for both directions of a socket
	chunkBytes   = 128 << 10
	chunkCount   = 1000
)

// Conn is a request socket. It may be used by many goroutines; requests are
// served one after the other.
type Conn struct {
	mu   sync.Mutex
	fd   int
	port uint32
	seq  uint32
	buf  []byte
	// intr stands in for the kernel's mark in tests: it is asked after each
	// dump whether to take it as interrupted.
	intr func() bool
}

// buffers are for what sockets receive. A socket into a pod lives for a
// millisecond, and a buffer for each would be most of what the garbage collector
// has to do.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// Dial opens a socket of protocol (unix.NETLINK_ROUTE…) inside ns.
func Dial(ns *NS, protocol int) (*Conn, error) {
	c := &Conn{buf: *buffers.Get().(*[]byte)}
	err := ns.Do(func() (err error) {
		c.fd, err = open(protocol, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		_ = unix.Close(c.fd)
		return nil, fmt.Errorf("name netlink socket: %w", err)
	}
	c.port = sa.(*unix.SockaddrNetlink).Pid
	return c, nil
}

func open(protocol, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|flags, protocol)
	if err != nil {
		return -1, fmt.Errorf("open netlink socket: %w", err)
	}
	// Best effort: older kernels lack some of them, and the buffers only make
	// overruns rarer.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bufferBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, bufferBytes)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, bufferBytes) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, bufferBytes)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("bind netlink socket: %w", err)
	}
	return fd, nil
}

// PortID is the socket's address: notifications that it caused carry it.
func (c *Conn) PortID() uint32 { return c.port }

// Close closes the socket.
func (c *Conn) Close() {
	_ = unix.Close(c.fd)
	if !c.mu.TryLock() {
		return // somebody still waits for an answer into the buffer
	}
	defer c.mu.Unlock()
	if b := c.buf; b != nil {
		c.buf = nil
		buffers.Put(&b)
	}
}

// Dump sends req, a message made with AppendHeader, as a dump request and calls
// each for every answer. When the kernel says that the tables changed meanwhile,
// reset is called and the dump repeated.
func (c *Conn) Dump(req []byte, reset func(), each func(Message)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	native.PutUint16(req[6:], native.Uint16(req[6:])|unix.NLM_F_DUMP)
	for range dumpAttempts {
		reset()
		intr, err := c.dumpOnce(req, each)
		if err != nil {
			return fmt.Errorf("dump: %w", err)
		}
		if !intr && (c.intr == nil || !c.intr()) {
			return nil
		}
	}
	return ErrInterrupted
}

func (c *Conn) dumpOnce(req []byte, each func(Message)) (interrupted bool, err error) {
	seq := c.nextSeq(1)
	native.PutUint32(req[8:], seq)
	if err := c.send(req); err != nil {
		return false, err
	}
	for done := false; !done; {
		n, err := c.receive()
		if err != nil {
			return false, err
		}
		messages(c.buf[:n], func(m Message) bool {
			if m.Seq != seq {
				return true
			}
			interrupted = interrupted || m.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Type {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				err, done = ackError(m), true
				return false
			}
			each(m)
			return true
		})
		if err != nil {
			return interrupted, err
		}
	}
	return interrupted, nil
}

// nextSeq reserves count sequence numbers and returns the first.
func (c *Conn) nextSeq(count int) uint32 {
	if c.seq > 1<<31 {
		c.seq = 0
	}
	first := c.seq + 1
	c.seq += uint32(count)
	return first
}

func (c *Conn) send(b []byte) error {
	for {
		err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return fmt.Errorf("send: %w", err)
		}
	}
}

func (c *Conn) receive() (int, error) {
	for {
		n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
		if err == nil {
			return n, nil
		}
		if err != unix.EINTR {
			return 0, fmt.Errorf("receive: %w", err)
		}
	}
}

// ackError reads an acknowledgement: nil for success, else the kernel's number
// with its explanation when it gives one.
func ackError(m Message) error {
	if len(m.Data) < 4 {
		return nil
	}
	code := int32(native.Uint32(m.Data))
	if code >= 0 {
		return nil
	}
	errno := unix.Errno(-code)
	if m.Flags&unix.NLM_F_ACK_TLVS == 0 || m.Type != unix.NLMSG_ERROR || len(m.Data) < 4+unix.NLMSG_HDRLEN {
		return errno
	}
	text := ""
	Attrs(m.Data[4+unix.NLMSG_HDRLEN:], func(kind uint16, data []byte) {
		if kind == unix.NLMSGERR_ATTR_MSG && len(data) > 0 {
			text = string(data[:len(data)-1])
		}
	})
	if text == "" {
		return errno
	}
	return fmt.Errorf("%w: %s", errno, text)
}
