package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/boot"
	"github.com/muslin-net/muslin/hack/lab/kube"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// installCNI gives a light node Debian's ptp plugin, with addresses that the
// routers know nothing of.
const installCNI = `cp /usr/lib/cni/ptp /usr/lib/cni/host-local /opt/cni/bin/
cat > /etc/cni/net.d/10-ptp.conflist <<E
{"cniVersion":"1.0.0","name":"ptp","plugins":[{"type":"ptp","ipMasq":false,
 "ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.7.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}
E`

// routersOnly starts a lab's routers, outside host and one light node, w1 in
// rack r2: real machines and real routing, without Kubernetes. Its name is like
// no other's, so that nothing a killed run has left is in the way.
func routersOnly(t *testing.T) (*Lab, Options) {
	t.Helper()
	text, err := os.ReadFile("topologies/two-racks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	plan, err := topology.Parse(append(text, "- {name: w1, rack: r2, kind: light, host: 33}\n"...))
	if err != nil {
		t.Fatal(err)
	}
	options := Options{
		Name: fmt.Sprintf("mt%08x", rand.Uint32()), Dir: filepath.Join(t.TempDir(), "lab"),
		Light: kube.Light{Setup: [][]string{{"sh", "-ec", installCNI}}, Agent: []string{"sleep", "infinity"}},
	}
	l, err := New(plan, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Down(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, step := range []func(context.Context) error{
		l.buildPrograms, l.writeConfiguration, func(context.Context) error { return l.Fabric.Build() }, l.startRouters,
	} {
		if err := step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.site.Start(t.Context(), []string{"w1"}); err != nil {
		t.Fatal(err)
	}
	return l, options
}

func run(t *testing.T, l *Lab, machine string, argv ...string) string {
	t.Helper()
	out, err := l.Machine(machine).Exec(t.Context(), argv...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestMachines(t *testing.T) {
	l, options := routersOnly(t)

	t.Run("packets go router by router", func(t *testing.T) {
		want := "10.1.0.1\n10.1.0.2\n10.1.2.33\n"
		if got := run(t, l, "outside", "probe", "trace", "10.1.2.33"); got != want {
			t.Errorf("trace from outside to w1:\n%swant:\n%s", got, want)
		}
	})
	t.Run("each is a computer of its own", func(t *testing.T) {
		if got := run(t, l, "w1", "hostname"); got != "w1\n" {
			t.Errorf("host name %q", got)
		}
		if got := run(t, l, "w1", "sh", "-c", "ls /run/netns 2>&1 | grep "+l.Name()+"; true"); got != "" {
			t.Errorf("the host's namespaces are seen: %q", got)
		}
		run(t, l, "w1", "touch", "/etc/"+l.Name())
		if _, err := os.Stat("/etc/" + l.Name()); err == nil {
			t.Error("a file written in a machine is on the host")
		}
	})
	t.Run("signals reach programs inside", func(t *testing.T) { testSignals(t, l) })
	t.Run("link", func(t *testing.T) { testLink(t, l) })
	t.Run("power", func(t *testing.T) { testPower(t, l) })
	t.Run("pods", func(t *testing.T) { testPods(t, l) })
	t.Run("the agent comes back", func(t *testing.T) {
		before := run(t, l, "w1", "pgrep", "-x", "sleep")
		run(t, l, "w1", "pkill", "-9", "-x", "sleep")
		eventually(t, "another agent runs", func() bool {
			after, err := l.Machine("w1").Exec(t.Context(), "pgrep", "-x", "sleep")
			return err == nil && string(after) != before
		})
	})
	t.Run("a later process finds it", func(t *testing.T) {
		opened, err := Open(options)
		if err != nil {
			t.Fatal(err)
		}
		if got := run(t, opened, "tor2", "hostname"); got != "tor2\n" {
			t.Errorf("host name %q", got)
		}
	})
	t.Run("it is not started twice", func(t *testing.T) {
		if _, err := l.Up(t.Context()); err == nil || !strings.Contains(err.Error(), "take it down first") {
			t.Errorf("second Up: %v", err)
		}
	})
}

func testSignals(t *testing.T, l *Lab) {
	command := l.Machine("outside").Command(t.Context(), "probe", "ping", "-i", "5ms", "10.1.2.33")
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // long enough for a few requests
	if err := command.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var result struct{ Sent, Received, Lost int }
	if err := json.NewDecoder(out).Decode(&result); err != nil {
		t.Fatalf("report of ping: %v", err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("ping: %v", err)
	}
	if result.Sent == 0 || result.Lost != 0 {
		t.Errorf("ping sent %d, received %d, lost %d", result.Sent, result.Received, result.Lost)
	}
	killed := l.Machine("outside").Command(t.Context(), "sleep", "4711")
	if err := killed.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "sleep runs", func() bool {
		_, err := l.Machine("outside").Exec(t.Context(), "pgrep", "-x", "sleep")
		return err == nil
	})
	if err := killed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = killed.Wait()
	eventually(t, "sleep is gone", func() bool {
		_, err := l.Machine("outside").Exec(t.Context(), "pgrep", "-x", "sleep")
		return err != nil
	})
}

func testLink(t *testing.T, l *Lab) {
	if err := l.Fabric.LinkDown("w1"); err != nil {
		t.Fatal(err)
	}
	if out, err := l.Machine("w1").Exec(t.Context(), "probe", "ping", "-c", "1", "-w", "500ms", "10.1.2.1"); err == nil && !strings.Contains(string(out), `"received":0`) {
		t.Errorf("answer over a pulled cable: %s", out)
	}
	if err := l.Fabric.LinkUp("w1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ping over the cable", func() bool {
		return strings.Contains(run(t, l, "w1", "probe", "ping", "-c", "1", "10.1.2.1"), `"received":1`)
	})
}

func testPower(t *testing.T, l *Lab) {
	run(t, l, "tor1", "touch", "/etc/on-disk", "/run/not-on-disk")
	run(t, l, "tor1", "ip", "route", "add", "blackhole", "192.0.2.0/24")
	if err := l.Machine("tor1").PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Machine("tor1").Exec(t.Context(), "true"); err == nil {
		t.Error("a program ran on a machine without power")
	}
	if left := traces(t, l.Name()+"-tor1"); len(left) > 0 {
		t.Errorf("left after the power cut: %v", left)
	}
	gone := netip.MustParsePrefix("10.1.1.0/24")
	eventually(t, "tor2 gives up tor1's rack", func() bool { return !hasRoute(t, l, "tor2", gone) })
	if err := l.Machine("tor1").PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "tor1's rack is back", func() bool { return hasRoute(t, l, "tor2", gone) })
	run(t, l, "tor1", "test", "-e", "/etc/on-disk")
	run(t, l, "tor1", "test", "!", "-e", "/run/not-on-disk")
	if hasRoute(t, l, "tor1", netip.MustParsePrefix("192.0.2.0/24")) {
		t.Error("a route outlived the power cut")
	}
}

func testPods(t *testing.T, l *Lab) {
	var addresses []netip.Addr
	for _, name := range []string{"a", "b"} {
		address, err := l.Pod("w1", "default", name).Add(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		addresses = append(addresses, address)
	}
	out, err := l.Pod("w1", "default", "a").Exec(t.Context(), "probe", "ping", "-c", "3", "-i", "5ms", addresses[1].String())
	if err != nil || !strings.Contains(string(out), `"received":3`) {
		t.Errorf("ping from pod to pod: %v: %s", err, out)
	}
	for range 2 { // the second time it is gone
		if err := l.Pod("w1", "default", "a").Delete(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := l.Pod("w1", "default", "a").Exec(t.Context(), "true"); err == nil {
		t.Error("a deleted pod still runs programs")
	}
	if _, err := l.Pod("n1", "default", "a").Add(t.Context()); err == nil || !strings.Contains(err.Error(), "not a light node") {
		t.Errorf("pod on a full node: %v", err)
	}
}

func hasRoute(t *testing.T, l *Lab, machine string, prefix netip.Prefix) bool {
	t.Helper()
	routes, err := l.Fabric.Routes(machine)
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range routes {
		if route.To == prefix {
			return true
		}
	}
	return false
}

// Down has to work from names alone: here the state is lost, one process hides
// in another cgroup, and one machine was never finished.
func TestDownAfterDisaster(t *testing.T) {
	l, options := routersOnly(t)
	hidden := l.Machine("tor1").Command(t.Context(), "sleep", "4712")
	if err := hidden.Start(); err != nil {
		t.Fatal(err)
	}
	unfinished := l.Machine("n1").Spec()
	unfinished.Services = []boot.Service{{Name: "hang", Argv: []string{"sleep", "4713"}, Once: true}}
	if err := l.Machine("n1").Make(unfinished); err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := l.Machine("n1").PowerOn(ended); !errors.Is(err, context.Canceled) {
		t.Fatalf("power on without waiting: %v", err)
	}
	if err := os.RemoveAll(l.site.StateFile()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := Down(t.Context(), options); err != nil {
			t.Fatal(err)
		}
	}
	_ = hidden.Wait()
	if left := traces(t, l.Name()+"-"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, err := os.Stat(l.Dir()); err == nil {
		t.Errorf("%s is left behind", l.Dir())
	}
}

// traces looks for namespaces, cgroups, and mounts of any process, whose names
// begin with or hold the prefix; not by the code under test.
func traces(t *testing.T, prefix string) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"/run/netns/" + prefix + "*", "/sys/fs/cgroup/" + prefix + "*", "/sys/fs/cgroup/*/" + prefix + "*"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, files...)
	}
	tables, err := fs.Glob(os.DirFS("/proc"), "[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		data, _ := os.ReadFile("/proc/" + table) // the process may have ended
		if strings.Contains(string(data), "/run/netns/"+prefix) {
			found = append(found, "mounts of process "+filepath.Dir(table))
		}
	}
	return found
}

// eventually waits for what must become true, with a bound generous enough to
// say nothing about speed.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("not within a minute: %s", what)
}
