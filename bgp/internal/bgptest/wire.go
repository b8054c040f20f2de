package bgptest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Wire is one BGP session that a benchmark speaks by itself: it writes what was
// encoded before and counts what comes, prefix by prefix, at next to no cost. It
// knows IPv4 unicast, and /26 prefixes of 10.0.0.0/8 alone.
type Wire struct {
	t      testing.TB
	conn   net.Conn
	closed chan struct{}

	mu    sync.Mutex // guards what follows
	have  [1 << 18 / 64]uint64
	count int
	mark  int // count to wait for
	due   chan time.Time
}

// Wire types and codes of RFC 4271.
const (
	wireOpen      = 1
	wireUpdate    = 2
	wireKeepalive = 4
	wireHeader    = 19
	wireLargest   = 4096
	wireHold      = 180 // seconds
)

// Prefix is the i-th /26 of 10.0.0.0/8.
func Prefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 10), byte(i >> 2), byte(i << 6)}), 26)
}

// Listen waits at TCP port 179 of the host's own address, until the test ends.
func (h *Host) Listen() net.Listener {
	h.t.Helper()
	var l net.Listener
	h.inside(func() (err error) {
		l, err = net.Listen("tcp", h.V4+":179")
		return err
	})
	h.t.Cleanup(func() { _ = l.Close() })
	return l
}

// Dial connects to TCP port 179 of an address, from one of the host's.
func (h *Host) Dial(from, to string) net.Conn {
	h.t.Helper()
	var c net.Conn
	Eventually(h.t, "connection from "+from+" to "+to, func() string {
		var failed error
		h.inside(func() error {
			d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 5 * time.Second}
			c, failed = d.Dial("tcp", to+":179")
			return nil
		})
		if failed != nil {
			return failed.Error()
		}
		return ""
	})
	return c
}

// inside runs f on a thread that is in the host's namespace. A socket belongs
// for ever to the namespace it was made in. The thread goes back: it may be the
// process's main one, whose namespace is the process's to others.
func (h *Host) inside(f func() error) {
	h.t.Helper()
	runtime.LockOSThread()
	home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatalf("open own netns: %v", err)
	}
	defer func() { _ = unix.Close(home) }()
	there, err := unix.Open("/run/netns/"+h.NS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		h.t.Fatalf("open netns %s: %v", h.NS, err)
	}
	defer func() { _ = unix.Close(there) }()
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		h.t.Fatalf("enter netns %s: %v", h.NS, err)
	}
	failed := f()
	if err := unix.Setns(home, unix.CLONE_NEWNET); err != nil {
		h.t.Fatalf("leave netns %s: %v", h.NS, err) // the thread is spoilt: it stays locked
	}
	runtime.UnlockOSThread()
	if failed != nil {
		h.t.Fatalf("in %s: %v", h.NS, failed)
	}
}

// Speak opens a session over a connection, as a speaker of that AS number and
// router ID, and returns once it is established.
func Speak(t testing.TB, c net.Conn, as uint16, id string) *Wire {
	t.Helper()
	w := &Wire{t: t, conn: c, closed: make(chan struct{})}
	t.Cleanup(func() { _ = c.Close(); <-w.closed })
	established := make(chan error, 1)
	go w.read(as, netip.MustParseAddr(id), established)
	select {
	case err := <-established:
		if err != nil {
			t.Fatalf("session of %s with %s: %v", id, c.RemoteAddr(), err)
		}
	case <-time.After(3 * time.Minute):
		t.Fatalf("session of %s with %s is not established after a minute", id, c.RemoteAddr())
	}
	return w
}

// message puts a header before a body.
func message(kind byte, body []byte) []byte {
	m := slices.Repeat([]byte{0xff}, 16)
	m = binary.BigEndian.AppendUint16(m, uint16(wireHeader+len(body)))
	return append(append(m, kind), body...)
}

// open has the capabilities: IPv4 unicast, route refresh, four-octet AS.
func open(as uint16, id netip.Addr) []byte {
	caps := []byte{1, 4, 0, 1, 0, 1, 2, 0, 65, 4, 0, 0, byte(as >> 8), byte(as)}
	b := []byte{4, byte(as >> 8), byte(as), 0, wireHold}
	b = append(b, id.AsSlice()...)
	b = append(b, byte(len(caps)+2), 2, byte(len(caps)))
	return message(wireOpen, append(b, caps...))
}

// read answers what has to be answered and counts updates, until the
// connection ends.
func (w *Wire) read(as uint16, id netip.Addr, established chan<- error) {
	defer close(w.closed)
	_, err := w.conn.Write(open(as, id))
	in := bufio.NewReaderSize(w.conn, 1<<16)
	m := make([]byte, wireLargest)
	for up := false; err == nil; {
		if _, err = io.ReadFull(in, m[:wireHeader]); err != nil {
			break
		}
		body := m[wireHeader:max(wireHeader, min(wireLargest, binary.BigEndian.Uint16(m[16:])))]
		if _, err = io.ReadFull(in, body); err != nil {
			break
		}
		switch m[18] {
		case wireOpen, wireKeepalive:
			_, err = w.conn.Write(message(wireKeepalive, nil))
			if m[18] == wireKeepalive && !up {
				up = true
				established <- nil
			}
		case wireUpdate:
			w.update(body)
		default:
			err = fmt.Errorf("message of type %d: %x", m[18], body)
		}
	}
	select {
	case established <- err: // nobody waits for it once the session was up
	default:
	}
}

// update counts the prefixes of an UPDATE (RFC 4271 section 4.3).
func (w *Wire) update(b []byte) {
	gone := int(binary.BigEndian.Uint16(b))
	attrs := int(binary.BigEndian.Uint16(b[2+gone:]))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.prefixes(b[2:2+gone], false)
	w.prefixes(b[4+gone+attrs:], true)
	if w.due != nil && w.count == w.mark {
		w.due <- time.Now()
		w.due = nil
	}
}

func (w *Wire) prefixes(b []byte, there bool) {
	for len(b) > 0 {
		bits, octets := b[0], (int(b[0])+7)/8
		if bits == 26 {
			i := (uint32(b[2])<<16 | uint32(b[3])<<8 | uint32(b[4])) >> 6
			bit := uint64(1) << (i % 64)
			if had := w.have[i/64]&bit != 0; had != there {
				w.have[i/64] ^= bit
				if there {
					w.count++
				} else {
					w.count--
				}
			}
		}
		b = b[1+octets:]
	}
}

// Expect tells, once, when the peer's table has so many prefixes.
func (w *Wire) Expect(count int) <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	due := make(chan time.Time, 1)
	if w.mark = count; w.count == count {
		due <- time.Now()
	} else {
		w.due = due
	}
	return due
}

// Have is how many prefixes the peer's table has.
func (w *Wire) Have() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.count
}

// Send writes encoded messages.
func (w *Wire) Send(messages []byte) {
	w.t.Helper()
	if _, err := w.conn.Write(messages); err != nil {
		w.t.Fatalf("write to %s: %v", w.conn.RemoteAddr(), err)
	}
}

// Announcements encodes the prefixes numbered first to first+count-1, dealt out
// to the next hops in turn, as one speaker that packs its updates does: to
// internal peers, and to their AS's own.
func Announcements(first, count int, nextHops []netip.Addr) []byte {
	var out []byte
	for h, nh := range nextHops {
		attrs := []byte{0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 5, 4, 0, 0, 0, 100, 0x40, 3, 4}
		attrs = append(attrs, nh.AsSlice()...)
		head := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(len(attrs)))
		head = append(head, attrs...)
		body := slices.Clone(head)
		for i := h; i < count; i += len(nextHops) {
			if wireHeader+len(body)+5 > wireLargest {
				out, body = append(out, message(wireUpdate, body)...), slices.Clone(head)
			}
			body = appendPrefix(body, first+i)
		}
		if len(body) > len(head) {
			out = append(out, message(wireUpdate, body)...)
		}
	}
	return out
}

// Withdrawals encodes the end of the same prefixes.
func Withdrawals(first, count int) []byte {
	var out []byte
	for count > 0 {
		n := min(count, (wireLargest-wireHeader-4)/5)
		body := binary.BigEndian.AppendUint16(nil, uint16(5*n))
		for i := range n {
			body = appendPrefix(body, first+i)
		}
		out = append(out, message(wireUpdate, append(body, 0, 0))...)
		first, count = first+n, count-n
	}
	return out
}

// EndOfRIB is the marker of RFC 4724 for IPv4 unicast.
func EndOfRIB() []byte { return message(wireUpdate, make([]byte, 4)) }

func appendPrefix(b []byte, i int) []byte {
	a := Prefix(i).Addr().As4()
	return append(b, 26, a[0], a[1], a[2], a[3])
}
