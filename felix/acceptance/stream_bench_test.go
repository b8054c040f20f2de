package acceptance

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const (
	streamPort = 5001
	burst      = 100 // packets
)

// pair connects two namespaces by TCP. The sockets block: a thread that waits in
// the kernel for one byte measures the path, and not Go's scheduler.
func pair(b *testing.B, from, to *nstest.NS, addr netip.Addr) (client, server int) {
	b.Helper()
	var listener int
	inside(b, to, func() (err error) {
		if listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
		if err := unix.Bind(listener, &unix.SockaddrInet4{Addr: addr.As4(), Port: streamPort}); err != nil {
			return err
		}
		return unix.Listen(listener, 1)
	})
	defer func() { _ = unix.Close(listener) }()
	inside(b, from, func() (err error) {
		if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(client, &unix.SockaddrInet4{Addr: addr.As4(), Port: streamPort})
	})
	server, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	for _, fd := range []int{client, server} {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			b.Fatal(err)
		}
		// As much under way in every turn: how large the kernel lets buffers grow
		// is another from connection to connection.
		for _, o := range []int{unix.SO_SNDBUFFORCE, unix.SO_RCVBUFFORCE} {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, 1<<20); err != nil {
				b.Fatal(err)
			}
		}
		// Nothing may hang for ever.
		for _, o := range []int{unix.SO_RCVTIMEO, unix.SO_SNDTIMEO} {
			if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, o, &unix.Timeval{Sec: 30}); err != nil {
				b.Fatal(err)
			}
		}
	}
	return client, server
}

func inside(b *testing.B, ns *nstest.NS, f func() error) {
	b.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	if err := in.Do(f); err != nil {
		b.Fatal(err)
	}
}

// pump sends as much as it can for a while, by the processors that the sender and
// the receiver are given, and gives the rate in Gb/s: that of the better quarter
// of many short intervals, in which nothing came between.
func pump(b *testing.B, from, to *nstest.NS, addr netip.Addr, sender, receiver int) float64 {
	b.Helper()
	client, server := pair(b, from, to, addr)
	var enough atomic.Bool
	sent := make(chan error, 1)
	defer pin(b, receiver)()
	go func() {
		defer func() { _ = unix.Close(client) }()
		defer pin(b, sender)()
		buf := make([]byte, 256<<10)
		for !enough.Load() {
			if _, err := write(client, buf); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 256<<10)
	receive := func(d time.Duration) float64 {
		bytes, took := 0, time.Duration(0)
		for start := time.Now(); took < d; took = time.Since(start) {
			n, err := read(server, buf)
			if err != nil || n == 0 {
				b.Fatalf("read %d: %v", n, err)
			}
			bytes += n
		}
		return float64(bytes) * 8 / took.Seconds() / 1e9
	}
	receive(dataWarm)
	rates := make([]float64, dataFor/dataEach)
	for i := range rates {
		rates[i] = receive(dataEach)
	}
	enough.Store(true)
	_ = unix.Close(server)
	// The sender may be told so while it still writes.
	if err := <-sent; err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		b.Fatalf("write: %v", err)
	}
	slices.Sort(rates)
	return rates[len(rates)*3/4]
}

// shower sends small packets by UDP and gives the time for one, in ns: the
// processor that sends one takes it to the far end before it sends another. It is
// that of the fastest tenth of many short bursts, in which nothing came between.
// Nobody reads the packets: those that find the socket full have gone the whole
// group.
func shower(b *testing.B, from, to *nstest.NS, addr netip.Addr, bursts int) float64 {
	b.Helper()
	open := func(ns *nstest.NS, use func(fd int, a unix.Sockaddr) error) (fd int) {
		inside(b, ns, func() (err error) {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return use(fd, &unix.SockaddrInet4{Addr: addr.As4(), Port: streamPort})
		})
		return fd
	}
	server, client := open(to, unix.Bind), open(from, unix.Connect)
	defer func() { _, _ = unix.Close(server), unix.Close(client) }()
	defer pin(b, 1)()
	one := make([]byte, 1)
	took := make([]float64, bursts)
	for i := range took {
		start := time.Now()
		for range burst {
			if _, err := write(client, one); err != nil {
				b.Fatalf("write: %v", err)
			}
		}
		took[i] = float64(time.Since(start).Nanoseconds()) / burst
	}
	slices.Sort(took)
	return took[len(took)/10]
}

// pingPong sends one byte to and fro and gives the time of each round trip.
func pingPong(b *testing.B, from, to *nstest.NS, addr netip.Addr, count int) []time.Duration {
	b.Helper()
	client, server := pair(b, from, to, addr)
	answered := make(chan error, 1)
	defer pin(b, 0)()
	go func() {
		defer pin(b, 1)()
		defer func() { _ = unix.Close(server) }()
		one := make([]byte, 1)
		for {
			n, err := read(server, one)
			if err == nil && n == 1 {
				_, err = write(server, one)
			}
			if err != nil || n == 0 {
				answered <- err
				return
			}
		}
	}()
	one := make([]byte, 1)
	took := make([]time.Duration, 0, count)
	for range count {
		start := time.Now()
		if _, err := write(client, one); err != nil {
			b.Fatalf("write: %v", err)
		}
		if n, err := read(client, one); err != nil || n != 1 {
			b.Fatalf("read %d: %v", n, err)
		}
		took = append(took, time.Since(start))
	}
	_ = unix.Close(client)
	if err := <-answered; err != nil {
		b.Fatalf("answer: %v", fmt.Errorf("echo: %w", err))
	}
	return took
}

// read and write go on after a signal: with a time limit on the socket the
// kernel does not by itself.
func read(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

func write(fd int, b []byte) (n int, err error) {
	for {
		if n, err = unix.Write(fd, b); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// pin keeps the calling goroutine on one processor until the returned function
// is called: whether both ends share one changes a round trip more than any rule
// does.
func pin(b *testing.B, cpu int) (free func()) {
	runtime.LockOSThread()
	var all, one unix.CPUSet
	err := unix.SchedGetaffinity(0, &all)
	one.Set(cpu % runtime.NumCPU())
	if err == nil {
		err = unix.SchedSetaffinity(0, &one)
	}
	if err != nil {
		b.Errorf("stay on processor %d: %v", cpu, err)
	}
	return func() {
		if err := unix.SchedSetaffinity(0, &all); err != nil {
			b.Errorf("leave processor %d: %v", cpu, err)
		}
		runtime.UnlockOSThread()
	}
}
