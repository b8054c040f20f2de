package client

import (
	"errors"
	"io"
	"syscall"

	"github.com/muslin-net/muslin/pkg/cnirpc/fd"
)

// conn is a connected unix socket.
type conn struct{ fd.FD }

// ErrLate says that the agent did not answer in time.
var ErrLate = errors.New("no answer in time")

// dial connects. Connecting, reading and writing wait at most so many
// milliseconds each; 0 is no bound.
func dial(socket string, wait uint) (conn, error) {
	number, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, &fd.Failure{Step: "socket", Cause: err}
	}
	c := conn{fd.FD(number)}
	if err = c.limit(wait); err == nil {
		err = late(fd.Again(func() error { return syscall.Connect(number, &syscall.SockaddrUnix{Name: socket}) }))
	}
	if err != nil {
		_ = syscall.Close(number)
		return conn{}, &fd.Failure{Step: "connect", Cause: err}
	}
	return c, nil
}

// limit has the kernel bound every wait: the plugin has no timers, which would
// take a thread.
func (c conn) limit(wait uint) error {
	bound := syscall.NsecToTimeval(int64(wait) * 1_000_000)
	for _, which := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(int(c.FD), syscall.SOL_SOCKET, which, &bound); err != nil {
			return err
		}
	}
	return nil
}

// Read is that of an FD, with a bound.
func (c conn) Read(b []byte) (int, error) {
	n, err := c.FD.Read(b)
	return n, late(err)
}

// Write is that of an FD, with a bound.
func (c conn) Write(b []byte) (int, error) {
	n, err := c.FD.Write(b)
	return n, late(err)
}

func late(err error) error {
	if errors.Is(err, syscall.EAGAIN) {
		return ErrLate
	}
	return err
}

// buffered reads ahead, so that the few small frames of an answer take one system
// call.
type buffered struct {
	from    io.Reader
	ahead   []byte // read and not yet taken
	storage [4096]byte
}

// Read takes what is there, and reads more only when there is nothing.
func (b *buffered) Read(p []byte) (int, error) {
	if len(b.ahead) == 0 {
		n, err := b.from.Read(b.storage[:])
		if b.ahead = b.storage[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(p, b.ahead)
	b.ahead = b.ahead[n:]
	return n, nil
}
