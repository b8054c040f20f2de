package app_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// The size of a restart that has to lose nothing.
const (
	restartRoutes = 10_000
	restartPods   = 200
)

const restartObjects = `apiVersion: v1
kind: Node
metadata: {name: bench}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, natOutgoing: true, vxlanMode: CrossSubnet}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.1.0.254, asNumber: 65001}
`

const restartBird = `router id 10.1.0.254;
protocol device {}
protocol static { ipv4; %s }
protocol bgp node {
  local 10.1.0.254 as 65001; neighbor 10.1.0.1 as 64512;
  connect delay time 1; connect retry time 1; error wait time 1, 2; graceful restart on;
  ipv4 { import all; export all; };
}
`

// crowdedNode is a node with an API server, a router that announces many
// prefixes, an agent in a process of its own, and many pods.
type crowdedNode struct {
	t      testing.TB
	server *kubetest.Server
	agent  *exec.Cmd
	http   *http.Client
	pods   []*os.File // their namespaces
}

func newCrowdedNode(t testing.TB) *crowdedNode {
	t.Helper()
	n := newRoutedNode(t, "", restartRoutes)
	n.startAgent()
	t.Cleanup(n.kill)
	n.await("is ready", func() bool { return len(n.waiting()) == 0 })
	n.plugPods(restartPods)
	n.await("has all routes", func() bool { return strings.Count(n.ours(), "\n") >= restartRoutes+restartPods })
	return n
}

// newRoutedNode is a node whose API server has these objects too, with a router
// that announces so many prefixes, and without an agent. Its address is 10.1.0.1,
// and the IPv6 ones besides.
func newRoutedNode(t testing.TB, objects string, routes int, v6 ...string) *crowdedNode {
	t.Helper()
	n := &crowdedNode{t: t, server: kubetest.StartWithCRDs(t)}
	n.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: n.server.Dial, DisableKeepAlives: true}}
	n.server.MustKubectl(t, restartObjects+objects, "apply", "-f", "-")
	n.startRouter(routes)
	addresses := `{"type":"InternalIP","address":"10.1.0.1"}`
	for _, a := range v6 {
		addresses += `,{"type":"InternalIP","address":"` + a + `"}`
		n.inside("ip", "addr", "add", a+"/64", "dev", "eth0", "nodad")
	}
	n.server.MustKubectl(t, "", "patch", "node", "bench", "--subresource=status", "-p", `{"status":{"addresses":[`+addresses+`]}}`)
	return n
}

// startRouter joins a namespace with BIRD in it, which announces so many prefixes,
// to the node.
func (n *crowdedNode) startRouter(count int) {
	n.t.Helper()
	rack := n.server.Netns + "-rack"
	n.run(exec.Command("ip", "netns", "add", rack))
	n.t.Cleanup(func() { n.run(exec.Command("ip", "netns", "del", rack)) })
	n.inside("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", rack)
	n.inside("ip", "addr", "add", "10.1.0.1/24", "dev", "eth0")
	n.inside("ip", "link", "set", "eth0", "up")
	n.inside("ip", "route", "add", "default", "via", "10.1.0.254")
	n.run(exec.Command("ip", "-n", rack, "addr", "add", "10.1.0.254/24", "dev", "eth0"))
	n.run(exec.Command("ip", "-n", rack, "link", "set", "eth0", "up"))
	var routes strings.Builder
	for i := range count {
		fmt.Fprintf(&routes, "route 100.%d.%d.%d/26 blackhole;\n", 64+i>>10, i>>2&255, i<<6&255)
	}
	conf := filepath.Join(n.server.Dir, "bird.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, restartBird, routes.String()), 0o600); err != nil {
		n.t.Fatal(err)
	}
	n.start(exec.Command("ip", "netns", "exec", rack, "bird", "-f", "-c", conf,
		"-s", filepath.Join(n.server.Dir, "bird.ctl"), "-P", filepath.Join(n.server.Dir, "bird.pid")))
}

// start starts a process that ends with the test.
func (n *crowdedNode) start(cmd *exec.Cmd) {
	n.t.Helper()
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
}

func (n *crowdedNode) run(cmd *exec.Cmd) string {
	n.t.Helper()
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		n.t.Fatalf("%v: %v: %s%s", cmd.Args, err, out, &complaints)
	}
	return string(out)
}

// inside runs a command in the node's namespace.
func (n *crowdedNode) inside(name string, args ...string) string {
	n.t.Helper()
	return n.run(n.server.Exec(name, args...))
}

func (n *crowdedNode) ours() string {
	n.t.Helper()
	return n.inside("ip", "route", "show", "proto", "109")
}

// await waits without a hurry.
func (n *crowdedNode) await(what string, ok func() bool) {
	n.t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			n.t.Fatalf("waited in ineffective until the node %s: %s", what, tail(filepath.Join(n.server.Dir, "agent.log")))
		}
	}
}

func (n *crowdedNode) startAgent() {
	n.t.Helper()
	self, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(n.server.Dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	n.agent = n.server.Exec(self)
	n.agent.Env = append(os.Environ(), envAgent+"="+n.server.Dir)
	n.agent.Stdout, n.agent.Stderr = log, log
	if err := n.agent.Start(); err != nil {
		n.t.Fatal(err)
	}
}

// kill ends the agent as a crash does.
func (n *crowdedNode) kill() {
	_ = n.agent.Process.Kill()
	_ = n.agent.Wait()
}

// waiting is what the agent says it waits for; everything while it does not
// answer.
func (n *crowdedNode) waiting() []string {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://127.0.0.1:9109/readyz", nil)
	if err != nil {
		n.t.Fatal(err)
	}
	resp, err := n.http.Do(req)
	if err != nil {
		return []string{"data-plane: " + err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(body)), "\n")
}

// buildPlugin makes the CNI plugin and returns its path.
func (n *crowdedNode) buildPlugin() string {
	n.t.Helper()
	built, err := image.Build(n.t.Context(), image.BuildOptions{Root: "../../..", Out: n.server.Dir}, []image.Program{image.Plugin})
	if err != nil {
		n.t.Fatal(err)
	}
	return built[0].Source
}

// plugPods has the CNI plugin itself wire the pods, eight at a time.
func (n *crowdedNode) plugPods(count int) {
	n.t.Helper()
	bin := n.buildPlugin()
	var objects strings.Builder
	for i := range count {
		fmt.Fprintf(&objects, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p%d, namespace: default}\n"+
			"spec: {nodeName: bench, containers: [{name: c, image: none}]}\n", i)
	}
	n.server.MustKubectl(n.t, objects.String(), "create", "-f", "-")
	n.pods = makeNamespaces(n.t, count)
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q}`,
		filepath.Join(n.server.Dir, "agent.sock"), filepath.Join(n.server.Dir, "spool"))
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := worker; i < count; i += 8 {
				cmd := n.server.Exec(bin)
				cmd.Env = []string{
					"CNI_COMMAND=ADD", fmt.Sprintf("CNI_CONTAINERID=p%d", i), "CNI_IFNAME=eth0", "CNI_PATH=/",
					fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), n.pods[i].Fd()),
					fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=p%d", i),
				}
				cmd.Stdin = strings.NewReader(conf)
				if out, err := cmd.CombinedOutput(); err != nil {
					n.t.Errorf("ADD of pod %d: %v %s", i, err, out)
				}
			}
		})
	}
	all.Wait()
}

// makeNamespaces makes network namespaces that live as long as the test.
func makeNamespaces(t testing.TB, count int) []*os.File {
	t.Helper()
	out := make([]*os.File, 0, count)
	done := make(chan error)
	go func() {
		for range count {
			f, err := unshared()
			if err != nil {
				done <- err
				return
			}
			out = append(out, f)
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range out {
			_ = f.Close()
		}
	})
	return out
}

// witness collects what a monitor prints.
type witness struct {
	mu  sync.Mutex
	out strings.Builder
}

func (w *witness) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.out.Write(b)
}

func (w *witness) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Split(strings.TrimSpace(w.out.String()), "\n")
}

// watch starts a monitor and returns once it listens: it shows what nudge does.
func (n *crowdedNode) watch(wake, shows string, name string, args ...string) *witness {
	n.t.Helper()
	w := &witness{}
	cmd := n.server.Exec(name, args...)
	cmd.Stdout = w
	n.start(cmd)
	n.await("is watched by "+name, func() bool {
		n.inside("sh", "-c", wake)
		return slices.ContainsFunc(w.lines(), func(l string) bool { return strings.Contains(l, shows) })
	})
	return w
}

// restart kills the agent and starts it anew. It returns how long the new
// process took until the kernel was as wanted, and until it was ready.
func (n *crowdedNode) restart() (plane, ready time.Duration) {
	n.t.Helper()
	n.kill()
	begin := time.Now()
	n.startAgent()
	for {
		waiting := n.waiting()
		if plane == 0 && !slices.ContainsFunc(waiting, func(w string) bool { return strings.HasPrefix(w, "data-plane") }) {
			plane = time.Since(begin)
		}
		if len(waiting) == 0 {
			return plane, time.Since(begin)
		}
		if time.Since(begin) > time.Minute {
			n.t.Fatalf("the agent is not ready after a minute: %q: %s", waiting, tail(filepath.Join(n.server.Dir, "agent.log")))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// ofTheKernel matches neighbours that the kernel has found by itself, and forgets
// when it likes.
var ofTheKernel = regexp.MustCompile(` (NOARP|STALE|REACHABLE|DELAY|PROBE|FAILED|INCOMPLETE)\b`)

// TestRestartDeletesNothingAlive kills the agent of a crowded node and starts
// it again. A route that nobody announces any more shows when the new process
// prunes; it is the only thing that goes, by the word of netlink itself.
func TestRestartDeletesNothingAlive(t *testing.T) {
	t.Parallel()
	n := newCrowdedNode(t)
	const stale, marker = "10.99.0.0/26", "192.0.2.1"
	routes, rules := n.ours(), n.inside("nft", "list", "table", "inet", "muslin")
	links := n.watch("ip route add blackhole "+marker+"; ip route del blackhole "+marker, marker,
		"ip", "-o", "monitor", "link", "address", "route", "neigh")
	tables := n.watch("nft add table inet marker; nft delete table inet marker", "marker", "nft", "monitor")
	pod := strings.Fields(n.inside("sh", "-c", "ip route show proto 109 scope link | head -1"))[0]
	ping := n.server.Exec("ping", "-q", "-i", "0.01", "-W", "5", pod)
	var pings witness
	ping.Stdout = &pings
	n.start(ping)
	n.kill()
	n.inside("ip", "route", "add", stale, "via", "10.1.0.254", "proto", "109", "metric", "1024")
	plane, ready := n.restart()
	t.Logf("kernel as wanted after %v, ready after %v", plane, ready)
	n.await("has pruned", func() bool { return !strings.Contains(n.ours(), stale) })
	n.await("has its routes", func() bool { return n.ours() == routes })
	if got := n.inside("nft", "list", "table", "inet", "muslin"); got != rules {
		t.Errorf("the rules are other ones:\n%s\nbefore:\n%s", got, rules)
	}
	// The last of the changes is on the monitors when a marker after it is.
	n.inside("ip", "route", "add", "blackhole", "192.0.2.2")
	n.await("is seen", func() bool {
		return slices.ContainsFunc(links.lines(), func(l string) bool { return strings.Contains(l, "192.0.2.2") })
	})
	if !slices.ContainsFunc(links.lines(), func(l string) bool { return strings.HasPrefix(l, "Deleted "+stale) }) {
		t.Error("the witness has not seen the stale route go: it proves nothing")
	}
	for _, l := range links.lines() {
		ours := strings.Contains(l, "proto 109") || strings.Contains(l, "PERMANENT") || strings.HasPrefix(strings.TrimPrefix(l, "Deleted "), "[")
		if strings.Contains(l, "192.0.2.") || strings.Contains(l, stale) || !ours && (!strings.HasPrefix(l, "Deleted") || ofTheKernel.MatchString(l)) {
			continue
		}
		t.Errorf("the restart touched what was as wanted: %s", l)
	}
	for _, l := range tables.lines() {
		if !strings.Contains(l, "marker") && !strings.HasPrefix(l, "# new generation") {
			t.Errorf("the restart touched rules: %s", l)
		}
	}
	_ = ping.Process.Signal(syscall.SIGINT)
	_ = ping.Wait()
	if text := strings.Join(pings.lines(), " "); !strings.Contains(text, " 0% packet loss") {
		t.Errorf("packets to a pod were lost: %s", text)
	}
}

// BenchmarkRestart tells how long a killed agent is away on a crowded node: until
// the kernel is known to be as wanted, and until every gate has passed, the BGP
// session's included.
func BenchmarkRestart(b *testing.B) {
	n := newCrowdedNode(b)
	var planes, readies []time.Duration
	for range max(b.N, 5) {
		plane, ready := n.restart()
		planes, readies = append(planes, plane), append(readies, ready)
	}
	slices.Sort(planes)
	slices.Sort(readies)
	for name, took := range map[string][]time.Duration{"kernel": planes, "ready": readies} {
		b.ReportMetric(float64(took[len(took)/2])/1e6, name+"-p50-ms")
		b.ReportMetric(float64(took[len(took)-1])/1e6, name+"-max-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// unshared opens a new network namespace. The thread that makes it ends with
// its goroutine.
func unshared() (*os.File, error) {
	type made struct {
		file *os.File
		err  error
	}
	out := make(chan made)
	go func() {
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			out <- made{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		out <- made{f, err}
	}()
	m := <-out
	return m.file, m.err
}
