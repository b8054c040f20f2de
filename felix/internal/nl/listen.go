package nl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrOverrun says that notifications were lost: whoever listens has to look at
// everything again.
var ErrOverrun = errors.New("netlink notifications lost")

// Listener receives the notifications of some groups.
type Listener struct {
	file *os.File
	raw  syscall.RawConn
	mu   sync.Mutex // held from taking a datagram to the end of handling it
	buf  []byte
}

// Listen subscribes to groups (unix.RTNLGRP_LINK…) of protocol inside ns.
// filter is a classic BPF program over the netlink message; nil passes all.
func Listen(ns *NS, protocol int, filter []unix.SockFilter, groups ...int) (*Listener, error) {
	fd := -1
	err := ns.Do(func() (err error) {
		fd, err = open(protocol, unix.SOCK_NONBLOCK)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(filter) > 0 {
		prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
		if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("filter netlink notifications: %w", err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			_ = unix.Close(fd)
			return nil, fmt.Errorf("join netlink group %d: %w", g, err)
		}
	}
	l := &Listener{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}
	var rawErr error
	if l.raw, rawErr = l.file.SyscallConn(); rawErr != nil {
		_ = l.file.Close()
		return nil, fmt.Errorf("watch netlink socket: %w", rawErr)
	}
	return l, nil
}

// Receive waits for notifications and calls each for every message. It returns
// ErrOverrun when some were lost, and the context's error when it ends.
func (l *Listener) Receive(ctx context.Context, each func(Message)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var err error
	waited := l.raw.Read(func(fd uintptr) bool {
		var got bool
		got, err = l.take(int(fd), each)
		return got || err != nil
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case waited != nil:
		return fmt.Errorf("wait for netlink notification: %w", waited)
	}
	return err
}

// Drain handles every notification that has been sent so far and does not wait:
// after it each has seen what the kernel did before the call, no matter who
// caused it.
func (l *Listener) Drain(each func(Message)) error {
	var err error
	controlled := l.raw.Control(func(fd uintptr) {
		for got := true; got && err == nil; {
			got, err = l.take(int(fd), each)
		}
	})
	return errors.Join(err, controlled)
}

// Ask sends a request by the listener's own socket, for what the kernel ties to it, and
// gives the kernel's answer. build adds the body. each sees what came before that.
func (l *Listener) Ask(kind uint16, build func([]byte) []byte, each func(Message)) error {
	req := EndMessage(build(AppendHeader(nil, kind, unix.NLM_F_ACK)), 0)
	var sent error
	if err := l.raw.Control(func(fd uintptr) {
		sent = unix.Sendto(int(fd), req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	}); err != nil {
		return err
	}
	if sent != nil {
		return fmt.Errorf("send: %w", sent)
	}
	answer := errors.New("the kernel does not answer")
	err := l.Drain(func(m Message) {
		if m.Type == unix.NLMSG_ERROR {
			answer = ackError(m)
			return
		}
		each(m)
	})
	return errors.Join(err, answer)
}

// take handles one datagram, false when there is none.
func (l *Listener) take(fd int, each func(Message)) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n, _, err := unix.Recvfrom(fd, l.buf, unix.MSG_DONTWAIT)
		switch err {
		case nil:
			messages(l.buf[:n], func(m Message) bool { each(m); return true })
			return true, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return false, nil
		case unix.ENOBUFS:
			return false, ErrOverrun
		default:
			return false, fmt.Errorf("receive netlink notification: %w", err)
		}
	}
}

// Follow calls each for every notification and lost when some got lost, until
// ctx ends; then it returns nil.
func (l *Listener) Follow(ctx context.Context, each func(Message), lost func()) error {
	for ctx.Err() == nil {
		err := l.Receive(ctx, each)
		if errors.Is(err, ErrOverrun) {
			lost()
			continue
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
	return nil
}

// Close ends the subscription.
func (l *Listener) Close() { _ = l.file.Close() }
