// Package nstest gives a test network namespaces of its own. They have no name
// and no mount: they end with the last thing that holds them, at the latest
// with the test's process, so nothing is left behind, not even after a crash.
//
// It is for tests alone. Without the right to make namespaces a test fails; it
// is never skipped.
package nstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// NS is a network namespace with its loopback interface up.
type NS struct {
	t    testing.TB
	file *os.File
	// Path names the namespace for as long as the test runs.
	Path string
}

// New makes a namespace that ends with the test.
func New(t testing.TB) *NS {
	t.Helper()
	file, err := make1()
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	n := &NS{t: t, file: file, Path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd())}
	t.Cleanup(func() { _ = file.Close() })
	n.Run("ip", "link", "set", "lo", "up")
	return n
}

// make1 leaves its thread where it was: the process's main thread, which names
// the process's namespace to others, may be the one it runs on.
func make1() (*os.File, error) {
	runtime.LockOSThread()
	back, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer func() { _ = back.Close() }()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	made, err := os.Open("/proc/thread-self/ns/net")
	if err := errors.Join(err, unix.Setns(int(back.Fd()), unix.CLONE_NEWNET)); err != nil {
		return nil, err
	}
	runtime.UnlockOSThread()
	return made, nil
}

// Command is a command that runs inside the namespace.
func (n *NS) Command(name string, args ...string) *exec.Cmd {
	return exec.CommandContext(n.t.Context(), "nsenter", append([]string{"--net=" + n.Path, name}, args...)...)
}

// Try runs a command inside and returns what it printed, less its complaints:
// ip has some about namespaces of others that are on their way out.
func (n *NS) Try(name string, args ...string) (string, error) {
	c := n.Command(name, args...)
	var complaints strings.Builder
	c.Stderr = &complaints
	out, err := c.Output()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s%s", name, strings.Join(args, " "), err, out, &complaints)
	}
	return string(out), err
}

// Run is Try that fails the test.
func (n *NS) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return out
}

// IP runs `ip` with the words of line.
func (n *NS) IP(line string) string {
	n.t.Helper()
	return n.Run("ip", strings.Fields(line)...)
}

// Veth joins this namespace with another by a pair of links, both up, with the
// addresses given as prefixes ("10.0.0.1/24"), and no duplicate detection. Each
// end knows the other's addresses for good: entries that are learned share one
// table with the whole machine, which may be full.
func (n *NS) Veth(name string, peer *NS, peerName string, addrs, peerAddrs []string) {
	n.t.Helper()
	n.Run("ip", "link", "add", name, "type", "veth", "peer", "name", peerName, "netns", peer.Path)
	n.up(name, addrs)
	peer.up(peerName, peerAddrs)
	// The end that was set up first drops packets until the kernel's link watch
	// has run.
	Eventually(n.t, "both ends of "+name+" are up", func() bool {
		return strings.Contains(n.IP("link show dev "+name), "state UP") &&
			strings.Contains(peer.IP("link show dev "+peerName), "state UP")
	})
	n.know(name, peer.mac(peerName), peerAddrs)
	peer.know(peerName, n.mac(name), addrs)
}

func (n *NS) mac(link string) string {
	n.t.Helper()
	_, rest, _ := strings.Cut(n.IP("-o link show dev "+link), "link/ether ")
	mac, _, _ := strings.Cut(rest, " ")
	return mac
}

func (n *NS) know(link, mac string, addrs []string) {
	n.t.Helper()
	for _, a := range addrs {
		a, _, _ = strings.Cut(a, "/")
		n.Run("ip", "neigh", "replace", a, "lladdr", mac, "dev", link, "nud", "permanent")
	}
}

func (n *NS) up(name string, addrs []string) {
	n.t.Helper()
	for _, a := range addrs {
		args := []string{"addr", "add", a, "dev", name}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		n.Run("ip", args...)
	}
	n.Run("ip", "link", "set", name, "up")
}

// Index is the index of a link.
func (n *NS) Index(link string) int {
	n.t.Helper()
	text, _, _ := strings.Cut(n.IP("-o link show dev "+link), ":")
	index, err := strconv.Atoi(text)
	if err != nil {
		n.t.Fatal(err)
	}
	return index
}
