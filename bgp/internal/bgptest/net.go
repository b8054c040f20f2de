package bgptest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Net is a subnet, 10.9.0.0/24 and fd09::/64, in a namespace that holds only
// the bridge.
type Net struct {
	t   testing.TB
	id  string
	hub string
}

// Host is a namespace on a Net.
type Host struct {
	t        testing.TB
	NS       string
	V4, V6   string // its addresses on the net
	dir      string
	hw       string
	linkName string
	hub      string
}

// New makes a net. Tests that use it need root.
func New(t testing.TB) *Net {
	t.Helper()
	n := &Net{t: t, id: fmt.Sprintf("%08x", rand.Uint32())}
	n.hub = "mt-bgp-" + n.id
	sh(t, "ip netns add "+n.hub)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.hub).Run() })
	sh(t, fmt.Sprintf("ip -n %[1]s link add br0 type bridge && ip -n %[1]s link set br0 up", n.hub))
	return n
}

// Host adds a namespace with the addresses 10.9.0.last and fd09::last.
func (n *Net) Host(last int) *Host {
	n.t.Helper()
	ns := fmt.Sprintf("mt-bgp-%s-%d", n.id, last)
	sh(n.t, "ip netns add "+ns)
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	return n.Join(ns, last)
}

// Join plugs somebody else's named namespace in, with the same addresses as
// Host would give it.
func (n *Net) Join(ns string, last int) *Host {
	n.t.Helper()
	h := &Host{
		t: n.t, NS: ns, hub: n.hub, linkName: fmt.Sprintf("h%d", last),
		V4: fmt.Sprintf("10.9.0.%d", last), V6: fmt.Sprintf("fd09::%d", last), dir: n.t.TempDir(),
	}
	sh(n.t, fmt.Sprintf(`ip -n %[1]s link set lo up
ip -n %[1]s link add e0 type veth peer name %[3]s netns %[2]s
ip -n %[2]s link set %[3]s master br0 up
ip netns exec %[1]s sysctl -qw net.ipv6.conf.e0.accept_dad=0
ip -n %[1]s addr add %[4]s/24 dev e0
ip -n %[1]s addr add %[5]s/64 dev e0 nodad
ip -n %[1]s link set e0 up`, h.NS, n.hub, h.linkName, h.V4, h.V6))
	return h
}

// Introduce gives every host a permanent neighbour entry for every other. The
// kernel's neighbour table is one for all namespaces, so a mesh of dozens needs
// more entries than it allows to be learned.
func Introduce(hosts []*Host) {
	for _, h := range hosts {
		var batch strings.Builder
		for _, o := range hosts {
			if o != h {
				fmt.Fprintf(&batch, "neigh replace %s lladdr %s dev e0 nud permanent\n", o.V4, o.mac())
			}
		}
		sh(h.t, fmt.Sprintf("ip -n %s -batch %s", h.NS, h.Write("neighbours", batch.String())))
	}
}

func (h *Host) mac() string {
	if h.hw == "" {
		h.hw = h.askMAC()
	}
	return h.hw
}

func (h *Host) askMAC() string {
	return strings.TrimSpace(sh(h.t, "ip -n "+h.NS+" -o link show e0 | sed 's/.*ether \\([^ ]*\\).*/\\1/'"))
}

// Unplug takes the host's cable out, without the host noticing: packets vanish.
func (h *Host) Unplug() { sh(h.t, fmt.Sprintf("ip -n %s link set %s nomaster", h.hub, h.linkName)) }

// Plug puts it back.
func (h *Host) Plug() { sh(h.t, fmt.Sprintf("ip -n %s link set %s master br0", h.hub, h.linkName)) }

// Start runs a program in the host and ends it with the test.
func (h *Host) Start(name string, args ...string) *exec.Cmd {
	h.t.Helper()
	c := exec.Command("ip", append([]string{"netns", "exec", h.NS, name}, args...)...)
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.Start(); err != nil {
		h.t.Fatalf("start %s: %v", name, err)
	}
	h.t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
		// A killed FRR leaves its crash log, in which the next of the same number fails.
		_ = os.RemoveAll(fmt.Sprintf("/var/tmp/frr/%s.%d", filepath.Base(name), c.Process.Pid))
		if h.t.Failed() && out.Len() > 0 {
			h.t.Logf("%s in %s said:\n%s", name, h.NS, out.String())
		}
	})
	return c
}

// Run runs a shell command in the host and returns its output; failure fails
// the test.
func (h *Host) Run(cmd string) string {
	h.t.Helper()
	return sh(h.t, fmt.Sprintf("ip netns exec %s sh -ec '%s'", h.NS, cmd))
}

// Write puts a file into the host's directory and returns its path.
func (h *Host) Write(name, content string) string {
	h.t.Helper()
	p := filepath.Join(h.dir, name)
	if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// Eventually waits until check returns "" and fails with its last complaint.
func Eventually(t testing.TB, what string, check func() string) {
	t.Helper()
	var last string
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if last = check(); last == "" {
			return
		}
	}
	t.Fatalf("%s: %s", what, last)
}

// Steady asks check for d and fails at its first complaint.
func Steady(t testing.TB, what string, d time.Duration, check func() string) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if bad := check(); bad != "" {
			t.Fatalf("%s: %s", what, bad)
		}
	}
}

// Contains is a check that text holds every one of words.
func Contains(text func() string, words ...string) func() string {
	return func() string {
		got := text()
		for _, w := range words {
			if !strings.Contains(got, w) {
				return fmt.Sprintf("no %q in:\n%s", w, got)
			}
		}
		return ""
	}
}

// Lacks is a check that text holds none of words.
func Lacks(text func() string, words ...string) func() string {
	return func() string {
		got := text()
		for _, w := range words {
			if strings.Contains(got, w) {
				return fmt.Sprintf("there is %q in:\n%s", w, got)
			}
		}
		return ""
	}
}

func sh(t testing.TB, s string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", s).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", s, err, out)
	}
	return string(out)
}

// File is the path of a file in the host's directory.
func (h *Host) File(name string) string { return filepath.Join(h.dir, name) }
