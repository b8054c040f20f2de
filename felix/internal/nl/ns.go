package nl

import (
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// NS is a network namespace that is held open.
type NS struct{ file *os.File }

// Open holds the namespace that path names, e.g. /run/netns/x or
// /proc/1/ns/net. An empty path means the one this process runs in.
func Open(path string) (*NS, error) {
	if path == "" {
		// Not /proc/self: the main thread may be one that was given up.
		path = "/proc/thread-self/ns/net"
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &NS{file: f}, nil
}

// FD is the file descriptor of the namespace; it stays the NS's own.
func (n *NS) FD() int { return int(n.file.Fd()) }

// Close lets go of the namespace.
func (n *NS) Close() { _ = n.file.Close() }

// Same reports whether both are the same namespace.
func (n *NS) Same(o *NS) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Fstat(n.FD(), &a); err != nil {
		return false, fmt.Errorf("stat network namespace: %w", err)
	}
	if err := unix.Fstat(o.FD(), &b); err != nil {
		return false, fmt.Errorf("stat network namespace: %w", err)
	}
	return a.Dev == b.Dev && a.Ino == b.Ino, nil
}

// Do runs fn on a thread inside the namespace and waits for it. fn must not
// start goroutines that rely on the namespace: only sockets and files opened
// inside keep it.
func (n *NS) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- n.onThread(fn) }()
	return <-done
}

// onThread ends with its thread still locked when the way back fails, so that
// the runtime ends the thread with the goroutine.
func (n *NS) onThread(fn func() error) error {
	runtime.LockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer func() { _ = back.Close() }()
	if err := unix.Setns(n.FD(), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter network namespace: %w", err)
	}
	fnErr := fn()
	if err := unix.Setns(int(back.Fd()), unix.CLONE_NEWNET); err == nil {
		runtime.UnlockOSThread()
	}
	return fnErr
}

// Handle opens a handle of the netlink library inside the namespace, for links,
// addresses and neighbours.
func (n *NS) Handle() (*netlink.Handle, error) {
	var h *netlink.Handle
	err := n.Do(func() (err error) {
		h, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open netlink handle: %w", err)
	}
	return h, nil
}
