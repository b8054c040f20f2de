package client

import (
	"context"
	"errors"
	"io"
	"syscall"
	"time"
)

// conn is a connected unix socket. Packages net and os would set up an event
// loop and finalizers, each with threads that have to be started, for one call
// that waits anyway.
type conn struct{ fd int }

// errLate says that the socket's own timeout, which is the deadline, has passed.
var errLate = errors.New("no answer in time")

// dial connects, and keeps the socket to the deadline of ctx.
func dial(ctx context.Context, socket string) (conn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return conn{}, &failure{"socket", err}
	}
	c := conn{fd}
	if err = c.limit(ctx); err == nil {
		err = again(func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) })
	}
	if err != nil {
		_ = syscall.Close(fd)
		return conn{}, &failure{"connect", err}
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
		if err := syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, which, &left); err != nil {
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
		_ = syscall.Shutdown(c.fd, syscall.SHUT_RDWR)
		close(down)
	})
	return func() {
		if !stop() {
			<-down // the number may be another file's after Close
		}
		_ = syscall.Close(c.fd) // the answer is in, or there is none
	}
}

// Read reads what is there, and waits for it.
func (c conn) Read(b []byte) (n int, err error) {
	err = again(func() (err error) { n, err = syscall.Read(c.fd, b); return err })
	if n == 0 && err == nil && len(b) > 0 {
		err = io.EOF
	}
	return max(n, 0), err
}

// Write writes all of b.
func (c conn) Write(b []byte) (done int, err error) {
	for done < len(b) && err == nil {
		var n int
		err = again(func() (err error) { n, err = syscall.Write(c.fd, b[done:]); return err })
		done += max(n, 0)
	}
	return done, err
}

// again repeats a system call that a signal interrupts.
func again(call func() error) error {
	for {
		switch err := call(); {
		case err == syscall.EINTR: //nolint:errorlint // as the kernel gave it
		case err == syscall.EAGAIN: //nolint:errorlint // likewise
			return errLate
		default:
			return err
		}
	}
}

// failure says which step failed.
type failure struct {
	step  string
	cause error
}

func (f *failure) Error() string { return f.step + ": " + f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }
