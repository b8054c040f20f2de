// Package netns makes, enters and removes named network namespaces, the ones
// `ip netns` lists under /run/netns.
//
// It never touches the network namespace it is called in. Kernel footprint:
// one bind mount under /run/netns for each namespace, and /run/netns mounted over
// itself, shared, as iproute2 does once a machine. A fresh process
// recognises a lab's namespaces by the prefix of their name.
package netns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Dir is where named network namespaces are mounted, as iproute2 has it.
const Dir = "/run/netns"

// Path returns the file of the namespace called name.
func Path(name string) string { return filepath.Join(Dir, name) }

// Exists tells whether a namespace called name is there.
func Exists(name string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(Path(name), &fs) == nil && fs.Type == unix.NSFS_MAGIC
}

// List returns the sorted names of all namespaces that begin with prefix.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), prefix) {
			names = append(names, entry.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// Create makes a new namespace called name, with lo up. It fails when the name
// is taken.
func Create(name string) error {
	if err := shareDir(); err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	file, err := os.OpenFile(Path(name), os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("create network namespace %s: %w", name, err)
	}
	file.Close()
	err = onThrowAwayThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := setLoopbackUp(); err != nil {
			return err
		}
		self := fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid())
		return unix.Mount(self, Path(name), "", unix.MS_BIND, "")
	})
	if err != nil {
		return errors.Join(fmt.Errorf("create network namespace %s: %w", name, err), Delete(name))
	}
	return nil
}

// shareDir makes Dir a mount of its own with shared propagation, as the first
// `ip netns add` on a machine does. If we left that to it, it would mount Dir
// over itself later and hide our names below: they could no longer be removed.
// The lock is the one iproute2 takes.
func shareDir() error {
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", Dir, err)
	}
	err = unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount of its own
		return err
	}
	if err := unix.Mount(Dir, Dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %s over itself: %w", Dir, err)
	}
	return unix.Mount("", Dir, "", unix.MS_SHARED|unix.MS_REC, "")
}

// setLoopbackUp sets lo of the calling thread's namespace up.
func setLoopbackUp() error {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer handle.Close()
	lo, err := handle.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := handle.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// Dump calls list again while the kernel says that its answer was disturbed by
// a change.
func Dump[T any](list func() ([]T, error)) ([]T, error) {
	for {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
}

// Delete removes the name; the namespace goes with its last process. Deleting
// an absent name is success.
func Delete(name string) error {
	for {
		err := unix.Unmount(Path(name), unix.MNT_DETACH)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return fmt.Errorf("delete network namespace %s: %w", name, err)
		}
	}
	if err := os.Remove(Path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete network namespace %s: %w", name, err)
	}
	return nil
}

// Do runs fn on a thread that is in the namespace called name. What fn starts
// in other goroutines is not in it.
func Do(name string, fn func() error) error {
	return onThrowAwayThread(func() error {
		if err := enter(name); err != nil {
			return err
		}
		return fn()
	})
}

// Handle opens a netlink handle bound to the namespace called name. The caller
// closes it.
func Handle(name string) (*netlink.Handle, error) {
	ns, err := vnetns.GetFromPath(Path(name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", name, err)
	}
	defer func() { _ = ns.Close() }() // only read from
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink in network namespace %s: %w", name, err)
	}
	return handle, nil
}

// Dial connects from inside the namespace called name. The host part of
// address must be an IP address: names are not resolved there.
func Dial(ctx context.Context, name, network, address string) (net.Conn, error) {
	var conn net.Conn
	err := Do(name, func() error {
		var err error
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

func enter(name string) error {
	file, err := os.Open(Path(name))
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	defer file.Close()
	if err := unix.Setns(int(file.Fd()), syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", name, err)
	}
	return nil
}

// onThrowAwayThread runs fn on a thread that ends with it, so that whatever fn
// does to the thread's namespaces reaches nobody else.
func onThrowAwayThread(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- fn()
	}()
	return <-done
}
