package cniserver_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// cnitool is CNI's own command-line tool, of the version that go.mod pins, on a
// machine. Its memory of what it added is the machine's, not /var/lib/cni.
type cnitool struct {
	m   *machine
	bin string
}

func newCNITool(t *testing.T, m *machine, conflist string) *cnitool {
	t.Helper()
	c := &cnitool{m: m, bin: filepath.Join(m.dir, "cnitool")}
	build := exec.Command("go", "build", "-o", c.bin, "github.com/containernetworking/cni/cnitool")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build cnitool: %v\n%s", err, out)
	}
	for _, dir := range []string{"net.d", "memory"} {
		if err := os.Mkdir(filepath.Join(m.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(m.dir, "net.d", "10-muslin.conflist"), []byte(conflist), 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs cnitool in the node's namespace on a pod's and gives what it printed
// on standard output.
func (c *cnitool) run(verb, netns string) (string, error) {
	const script = `mkdir -p /var/lib/cni && mount --bind "$1" /var/lib/cni && shift && exec nsenter --net="$1" -- "$2" "$3" k8s-pod-network "$4"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", filepath.Join(c.m.dir, "memory"), c.m.netns, c.bin, verb, netns)
	cmd.Env = append(os.Environ(), "NETCONFPATH="+filepath.Join(c.m.dir, "net.d"), "CNI_PATH="+c.m.binDir+":/usr/lib/cni", "CNI_IFNAME=eth0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("cnitool %s %s: %w: %s%s", verb, netns, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

func (c *cnitool) must(verb, netns string) string {
	c.m.t.Helper()
	out, err := c.run(verb, netns)
	if err != nil {
		c.m.t.Fatal(err)
	}
	return out
}

// namedNetns makes a namespace as `ip netns` does.
func namedNetns(t *testing.T, name string) (path string) {
	t.Helper()
	name = fmt.Sprintf("mt-cnitool-%08x-%s", rand.Uint32(), name)
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Fatalf("ip netns add %s: %v %s", name, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
			t.Errorf("ip netns del %s: %v %s", name, err, out)
		}
	})
	return "/run/netns/" + name
}

// TestCNIToolDrivesEveryVerb is a pod's life without Kubernetes and without a
// runtime: people try a plugin so.
func TestCNIToolDrivesEveryVerb(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	c := newCNITool(t, m, string(m.list("1.1.0").Bytes))
	a, b := namedNetns(t, "a"), namedNetns(t, "b")
	c.must("status", a)
	var address [2]string
	for i, netns := range []string{a, b} {
		out := c.must("add", netns)
		var r types100.Result
		if err := json.Unmarshal([]byte(out), &r); err != nil || len(r.IPs) != 2 || r.CNIVersion != "1.1.0" {
			t.Fatalf("result of ADD: %v: %s", err, out)
		}
		address[i] = r.IPs[0].Address.IP.String()
		m.ping(netns, address[i])
		c.must("check", netns)
	}
	if address[0] == address[1] {
		t.Errorf("both have %s", address[0])
	}
	inNetns(t, a, "ip", "link", "set", "eth0", "down")
	if _, err := c.run("check", a); err == nil || !strings.Contains(err.Error(), "eth0") {
		t.Errorf("CHECK of a pod whose link is down: %v", err)
	}
	c.must("del", a)
	c.must("del", a) // once more is success
	m.ping(b, address[1])
	c.must("gc", b) // cnitool names no attachment valid
	m.wantNothing()
	// The namespaces serve again.
	c.must("add", a)
	c.must("del", a)
	m.wantNothing()
	m.stopAgent()
	if _, err := c.run("status", a); err == nil || !strings.Contains(err.Error(), "agent.sock") {
		t.Errorf("STATUS without an agent: %v", err)
	}
}
