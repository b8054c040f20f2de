package nl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrOverrun says that notifications were lost: whoever listens has to look at
// everything again.
var ErrOverrun = errors.New("netlink notifications lost")

// Listener receives the notifications of some groups.
type Listener struct {
	file *os.File
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
			unix.Close(fd)
			return nil, fmt.Errorf("filter netlink notifications: %w", err)
		}
	}
	for _, g := range groups {
		if err := unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, g); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("join netlink group %d: %w", g, err)
		}
	}
	return &Listener{file: os.NewFile(uintptr(fd), "netlink"), buf: make([]byte, 64<<10)}, nil
}

// Receive waits for notifications and calls each for every message. It returns
// ErrOverrun when some were lost, and the context's error when it ends.
func (l *Listener) Receive(ctx context.Context, each func(Message)) error {
	stop := context.AfterFunc(ctx, func() { _ = l.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	n, err := l.file.Read(l.buf)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, unix.ENOBUFS):
		return ErrOverrun
	case err != nil:
		return fmt.Errorf("receive netlink notification: %w", err)
	}
	messages(l.buf[:n], func(m Message) bool { each(m); return true })
	return nil
}

// Close ends the subscription.
func (l *Listener) Close() error { return l.file.Close() }
