package acceptance

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

const streamPort = 5001

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

// pump sends as much as it can for a while. It gives the bytes that arrived and
// the time until the last of them.
func pump(b *testing.B, from, to *nstest.NS, addr netip.Addr, d time.Duration) (bytes int, took time.Duration) {
	b.Helper()
	client, server := pair(b, from, to, addr)
	sent := make(chan error, 1)
	defer pin(b, 1)()
	start := time.Now()
	go func() {
		defer func() { _ = unix.Close(client) }()
		defer pin(b, 0)()
		buf := make([]byte, 256<<10)
		for time.Since(start) < d {
			if _, err := write(client, buf); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	buf := make([]byte, 256<<10)
	for {
		n, err := read(server, buf)
		if err != nil {
			b.Fatalf("read: %v", err)
		}
		if n == 0 {
			break
		}
		bytes += n
	}
	took = time.Since(start)
	_ = unix.Close(server)
	if err := <-sent; err != nil {
		b.Fatalf("write: %v", err)
	}
	return bytes, took
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
