package app_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"

	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// fabric is what nodes are joined by: a namespace with a bridge, which is the
// subnet 10.1.0.0/24, and a router from it to each node behind a link of its own.
// The API server is reached past it.
type fabric struct {
	t      testing.TB
	server *kubetest.Server
	netns  string
	plugin string // the CNI plugin's binary

	env  []string // besides, of agents that start from now on
	disk string   // of nodes that join from now on: the options of a tmpfs that has their files

	patience time.Duration // of await; 0: 3 min
	pause    time.Duration // of await between two looks; 0: 20 ms
}

// member is a node in a namespace of its own, with an agent in a process and one
// pod.
type member struct {
	f             *fabric
	name, netns   string
	address, gate string // its own, and the router's on its link
	address6      string
	dir           string
	http          *http.Client
	agent         *exec.Cmd
	pod           *os.File // the namespace of its pod
	podIP, podIP6 string
}

func newFabric(t testing.TB, objects string) *fabric {
	t.Helper()
	f := &fabric{t: t, server: kubetest.StartWithCRDs(t)}
	f.server.MustKubectl(t, objects, "apply", "-f", "-")
	f.lay()
	f.route()
	built, err := image.Build(t.Context(), image.BuildOptions{Root: "../../..", Out: f.server.Dir}, []image.Program{image.Plugin})
	if err != nil {
		t.Fatal(err)
	}
	f.plugin = built[0].Source
	return f
}

// lay makes the bridge.
func (f *fabric) lay() {
	f.t.Helper()
	f.netns = f.server.Netns + "-wires"
	f.makeNetns(f.netns)
	f.ip("link", "add", "br0", "type", "bridge")
	f.ip("link", "set", "br0", "up")
}

// route makes the fabric the router of the bridge's subnet, too.
func (f *fabric) route() {
	f.t.Helper()
	f.ip("addr", "add", "10.1.0.254/24", "dev", "br0")
	f.ip("addr", "add", "fd01::fe/64", "dev", "br0", "nodad")
	f.exec("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
}

func (f *fabric) makeNetns(name string) {
	f.t.Helper()
	f.run(exec.Command("ip", "netns", "add", name))
	f.t.Cleanup(func() { f.run(exec.Command("ip", "netns", "del", name)) })
	f.run(exec.Command("ip", "-n", name, "link", "set", "lo", "up"))
}

func (f *fabric) run(cmd *exec.Cmd) string {
	f.t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.t.Fatalf("%v: %v: %s", cmd.Args, err, out)
	}
	return string(out)
}

func (f *fabric) ip(args ...string) {
	f.t.Helper()
	f.run(exec.Command("ip", append([]string{"-n", f.netns}, args...)...))
}

func (f *fabric) exec(name string, args ...string) string {
	f.t.Helper()
	return f.run(exec.Command("ip", append([]string{"netns", "exec", f.netns, name}, args...)...))
}

// onlyVXLAN has the fabric drop everything between nodes but UDP 4789, ARP and
// neighbour discovery. Where the kernel has br_netfilter both tables see what
// crosses the bridge.
func (f *fabric) onlyVXLAN() {
	f.t.Helper()
	const rules = `{ chain forward {
		type filter hook forward priority 0; policy drop;
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept; udp dport 4789 accept; tcp dport 179 counter; %s }; }
	`
	f.exec("nft", "table inet shut "+fmt.Sprintf(rules, "")+"table bridge shut "+fmt.Sprintf(rules, "ether type arp accept;"))
}

func (f *fabric) open() {
	f.t.Helper()
	f.exec("nft", "flush", "ruleset")
}

// await waits without a hurry.
func (f *fabric) await(what string, wrong func() string) {
	f.t.Helper()
	for end := time.Now().Add(cmp.Or(f.patience, 3*time.Minute)); ; time.Sleep(cmp.Or(f.pause, 20*time.Millisecond)) {
		is := wrong()
		if is == "" {
			return
		}
		if time.Now().After(end) {
			f.t.Fatalf("waited in ineffective: %s: %s", what, is)
		}
	}
}

// join adds a node with a pod: on the bridge, or behind the router where subnet is
// not 1.
func (f *fabric) join(name string, subnet, host int) *member {
	f.t.Helper()
	m := f.connect(name, subnet, host)
	f.server.MustKubectl(f.t, "apiVersion: v1\nkind: Node\nmetadata: {name: "+name+"}\n", "create", "-f", "-")
	f.server.MustKubectl(f.t, "", "patch", "node", name, "--subresource=status", "-p",
		`{"status":{"addresses":[{"type":"InternalIP","address":"`+m.address+`"},{"type":"InternalIP","address":"`+m.address6+`"}]}}`)
	m.startAgent()
	f.t.Cleanup(m.kill)
	m.plug()
	return m
}

// connect makes a node that reaches the API server and has no agent yet.
func (f *fabric) connect(name string, subnet, host int) *member {
	f.t.Helper()
	m := &member{f: f, name: name, netns: f.server.Netns + "-" + name, dir: f.t.TempDir()}
	m.address, m.gate = fmt.Sprintf("10.%d.0.%d", subnet, host), fmt.Sprintf("10.%d.0.254", subnet)
	f.makeNetns(m.netns)
	if f.disk != "" {
		f.run(exec.Command("mount", "-t", "tmpfs", "-o", f.disk, "none", m.dir))
		f.t.Cleanup(func() { f.run(exec.Command("umount", "--lazy", m.dir)) })
	}
	port := "to-" + name
	f.ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", m.netns)
	f.ip("link", "set", port, "up")
	gate6 := fmt.Sprintf("fd%02d::fe", subnet)
	m.address6 = fmt.Sprintf("fd%02d::%d", subnet, host)
	if subnet == 1 {
		f.ip("link", "set", port, "master", "br0")
	} else {
		f.ip("addr", "add", m.gate+"/24", "dev", port)
		f.ip("addr", "add", gate6+"/64", "dev", port, "nodad")
	}
	m.inside("ip", "addr", "add", m.address+"/24", "dev", "eth0")
	m.inside("ip", "addr", "add", m.address6+"/64", "dev", "eth0", "nodad")
	m.inside("ip", "link", "set", "eth0", "up")
	m.inside("ip", "route", "add", "default", "via", m.gate)
	m.inside("ip", "route", "add", "default", "via", gate6)
	m.forwardAPI()
	return m
}

// inside runs a command in the node's namespace.
func (m *member) inside(name string, args ...string) string {
	m.f.t.Helper()
	return m.f.run(m.exec(name, args...))
}

func (m *member) exec(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + m.netns, "--", name}, args...)...)
}

// there runs do in the node's namespace; sockets that it opens stay there.
func (m *member) there(do func() error) error {
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		return err
	}
	defer home.Close()
	node, err := netns.GetFromName(m.netns)
	if err != nil {
		return err
	}
	defer node.Close()
	if err := netns.Set(node); err != nil {
		return err
	}
	err = do()
	if back := netns.Set(home); back != nil {
		return errors.Join(err, back) // the thread is spoilt: it stays locked
	}
	runtime.UnlockOSThread()
	return err
}

// forwardAPI has the node reach the API server where its kubeconfig says.
func (m *member) forwardAPI() {
	m.f.t.Helper()
	config, err := os.ReadFile(filepath.Join(m.f.server.Dir, "kubeconfig"))
	if err == nil {
		err = os.WriteFile(filepath.Join(m.dir, "kubeconfig"), config, 0o600)
	}
	if err != nil {
		m.f.t.Fatal(err)
	}
	m.f.server.ReachFrom(m.f.t, m.netns)
	m.http = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			err = m.there(func() (err error) { conn, err = new(net.Dialer).DialContext(ctx, network, addr); return err })
			return conn, err
		}}}
}

func (m *member) startAgent() {
	m.f.t.Helper()
	m.launchAgent()
	m.awaitReady()
}

func (m *member) launchAgent() {
	m.f.t.Helper()
	self, err := os.Executable()
	if err != nil {
		m.f.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(m.dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.f.t.Fatal(err)
	}
	defer log.Close()
	m.agent = m.exec(self)
	m.agent.Env = append(append(os.Environ(), envAgent+"="+m.dir, envNode+"="+m.name), m.f.env...)
	m.agent.Stdout, m.agent.Stderr = log, log
	if err := m.agent.Start(); err != nil {
		m.f.t.Fatal(err)
	}
}

// kill ends the agent as a crash does.
func (m *member) kill() {
	_ = m.agent.Process.Kill()
	_ = m.agent.Wait()
}

// get asks the node's agent.
func (m *member) get(path string) (string, error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://127.0.0.1:9109"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := m.http.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

func (m *member) awaitReady() {
	m.f.t.Helper()
	m.f.await(m.name+" is ready", func() string {
		if _, err := m.get("/readyz"); err != nil {
			return err.Error() + "\n" + tail(filepath.Join(m.dir, "agent.log"))
		}
		return ""
	})
}

// plug has the CNI plugin wire the node's pod.
func (m *member) plug() {
	m.f.t.Helper()
	m.object("p-" + m.name)
	m.wire("p-"+m.name, m.name)
}

// object makes a pod of the node in the API.
func (m *member) object(pod string) {
	m.f.t.Helper()
	m.f.server.MustKubectl(m.f.t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default}\n"+
		"spec: {nodeName: %s, containers: [{name: c, image: none}]}\n", pod, m.name), "create", "-f", "-")
}

// wire has the CNI plugin wire a pod in a new sandbox; it is the node's from then on.
func (m *member) wire(pod, sandbox string) {
	m.f.t.Helper()
	m.pod = makeNamespaces(m.f.t, 1)[0]
	m.attach(pod, sandbox)
}

// attach has the CNI plugin wire a pod in the node's sandbox.
func (m *member) attach(pod, sandbox string) {
	m.f.t.Helper()
	if out, err := m.cni("ADD", pod, sandbox, m.netnsOfPod()); err != nil {
		m.f.t.Fatalf("ADD: %v: %s", err, out)
	}
	found := regexp.MustCompile(`(?s)inet ([0-9.]+).*inet6 (fd77[0-9a-f:]+)`).FindStringSubmatch(m.f.run(m.inPod("ip", "addr", "show", "dev", "eth0")))
	if found == nil {
		m.f.t.Fatalf("the pod of %s lacks an address", m.name)
	}
	m.podIP, m.podIP6 = found[1], found[2]
}

func (m *member) netnsOfPod() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.pod.Fd()) }

// cni runs the plugin for a sandbox of a pod.
func (m *member) cni(verb, pod, sandbox, netns string) (out string, err error) {
	cmd := m.exec(m.f.plugin)
	cmd.Env = []string{
		"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + sandbox, "CNI_IFNAME=eth0", "CNI_PATH=/", "CNI_NETNS=" + netns,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + pod,
	}
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q}`,
		filepath.Join(m.dir, "agent.sock"), filepath.Join(m.dir, "spool")))
	text, err := cmd.CombinedOutput()
	return string(text), err
}

func (m *member) inPod(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=" + m.netnsOfPod(), "--", name}, args...)...)
}

// routes are the node's routes to other nodes' pods, without what they have in
// common.
func (m *member) routes() string {
	m.f.t.Helper()
	var out []string
	for _, l := range strings.Split(m.inside("ip", "route", "show", "proto", "109"), "\n") {
		if l = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(l), "metric 1024")); strings.Contains(l, " via ") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return strings.Join(out, "\n")
}

// stream is a ping from one pod to another, a hundred a second.
type stream struct {
	cmd   *exec.Cmd
	out   witness
	what  string
	ended bool
}

// ping starts streams of both families to the pod of another node, once it answers.
func (m *member) ping(to *member) (both []*stream) {
	m.f.t.Helper()
	for _, address := range []string{to.podIP, to.podIP6} {
		what := fmt.Sprintf("the pod of %s to that of %s, %s", m.name, to.name, address)
		m.f.await(what, func() string {
			if out, err := m.inPod("ping", "-c", "1", "-W", "1", address).CombinedOutput(); err != nil {
				return string(out) + m.routes() + "\n" + tail(filepath.Join(m.dir, "agent.log"))
			}
			return ""
		})
		s := &stream{cmd: m.inPod("ping", "-q", "-i", "0.01", "-W", "5", address), what: what}
		s.cmd.Stdout = &s.out
		if err := s.cmd.Start(); err != nil {
			m.f.t.Fatal(err)
		}
		m.f.t.Cleanup(func() { s.end() })
		both = append(both, s)
	}
	return both
}

func (s *stream) end() string {
	if !s.ended {
		s.ended = true
		_ = s.cmd.Process.Signal(syscall.SIGINT)
		_ = s.cmd.Wait()
	}
	return strings.Join(s.out.lines(), " ")
}

// lostNothing ends streams.
func lostNothing(t *testing.T, streams ...[]*stream) {
	t.Helper()
	for _, s := range slices.Concat(streams...) {
		if text := s.end(); !strings.Contains(text, " 0% packet loss") {
			t.Errorf("%s: %s", s.what, text)
		}
	}
}
