package client

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/muslin-net/muslin/pkg/cnirpc/fd"
)

// conn is a connected unix socket.
type conn struct{ fd.FD }

// errLate says that the socket's own timeout, which is the deadline, has passed.
var errLate = errors.New("no answer in time")

// dial connects, and keeps the socket to the deadline of ctx.
func dial(ctx context.Context, socket string) (conn, error) {
	number, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, &fd.Failure{Step: "socket", Cause: err}
	}
	c := conn{fd.FD(number)}
	if err = c.limit(ctx); err == nil {
		err = late(fd.Again(func() error { return syscall.Connect(number, &syscall.SockaddrUnix{Name: socket}) }))
	}
	if err != nil {
		_ = syscall.Close(number)
		return conn{}, &fd.Failure{Step: "connect", Cause: err}
	}
	return c, nil
}

// limit sets how long connecting, reading and writing may wait.
func (c conn) limit(ctx context.Context) error {
	deadline, ok := ctx.Deadline()
	if !ok {
		return nil
	}
	left := syscall.NsecToTimeval(max(time.Until(deadline), time.Microsecond).Nanoseconds())
	for _, which := range []int{syscall.SO_RCVTIMEO, syscall.SO_SNDTIMEO} {
		if err := syscall.SetsockoptTimeval(int(c.FD), syscall.SOL_SOCKET, which, &left); err != nil {
			return err
		}
	}
	return nil
}

// closeAfter returns what closes the connection. When ctx ends before, reading
// and writing end.
func (c conn) closeAfter(ctx context.Context) func() {
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = syscall.Shutdown(int(c.FD), syscall.SHUT_RDWR)
		close(down)
	})
	return func() {
		if !stop() {
			<-down // the number may be another file's after Close
		}
		_ = syscall.Close(int(c.FD)) // the answer is in, or there is none
	}
}

// Read is that of an FD, whose timeout is the deadline.
func (c conn) Read(b []byte) (int, error) {
	n, err := c.FD.Read(b)
	return n, late(err)
}

// Write is that of an FD, whose timeout is the deadline.
func (c conn) Write(b []byte) (int, error) {
	n, err := c.FD.Write(b)
	return n, late(err)
}

func late(err error) error {
	if errors.Is(err, syscall.EAGAIN) {
		return errLate
	}
	return err
}
