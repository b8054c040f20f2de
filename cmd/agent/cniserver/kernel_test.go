package cniserver_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/pkg/model"
)

// The tests of this file drive the real plugin binary with CNI's own library
// against an agent in a process of its own: the real server, the real kernel,
// addresses in files (they outlive the process, as the API's do).

const (
	envAgent = "MUSLIN_TEST_AGENT" // directory of a test agent: this process is one
	envNetns = "MUSLIN_TEST_NETNS" // the node's network namespace
	envKill  = "MUSLIN_TEST_KILL"  // the point at which the agent kills itself
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envAgent); dir != "" {
		if err := runAgent(dir); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err) // the test misses its "ready"
		}
		return
	}
	m.Run()
	if pluginDir != "" {
		os.RemoveAll(pluginDir)
	}
}

func runAgent(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	// The end of standard input is the end of the test.
	ctx, cancel := context.WithCancel(ctx)
	go func() { _, _ = os.Stdin.Read(make([]byte, 1)); cancel() }()
	plugger, err := pod.New(pod.Options{NetNS: os.Getenv(envNetns)})
	if err != nil {
		return err
	}
	defer plugger.Close()
	adopted, err := plugger.List(ctx)
	if err != nil {
		return err
	}
	k := &kernelRooms{dir: filepath.Join(dir, "handles"), plugger: plugger, endpoints: map[string]model.Endpoint{}, put: map[uint64]model.Endpoint{}, attached: make(chan struct{}, 1)}
	for _, ep := range adopted {
		k.endpoints[ep.ContainerID] = ep
	}
	s := cniserver.New(cniserver.Options{
		Addresses: k, PodInterfaces: kernelInterfaces{k}, Endpoints: k, Pods: k, FormerOwners: k, Node: "node1",
		Socket: filepath.Join(dir, "agent.sock"), Spool: filepath.Join(dir, "spool"),
		DrainInterval: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	go func() { <-s.Ready(); fmt.Println("ready") }()
	return s.Run(ctx)
}

// point kills the process, as kill -9 does, at the place that the test named.
func point(name string) {
	if os.Getenv(envKill) == name {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

// kernelRooms is a small node: addresses in files, wires by felix/pod, host
// routes by ip.
type kernelRooms struct {
	mu        sync.Mutex
	dir       string
	plugger   *pod.Plugger
	endpoints map[string]model.Endpoint // by sandbox
	put       map[uint64]model.Endpoint // by revision
	revision  uint64
	attached  chan struct{} // holds one: a wire has been made
}

func (k *kernelRooms) Assign(_ context.Context, r cniserver.AddressRequest) ([]netip.Addr, error) {
	point("before Assign")
	defer point("after Assign")
	k.mu.Lock()
	defer k.mu.Unlock()
	if have, err := k.read(r.Handle); err != nil || have != nil {
		return have, err
	}
	handles, err := k.handles()
	if err != nil {
		return nil, err
	}
	taken := map[netip.Addr]bool{}
	for _, h := range handles {
		addrs, err := k.read(h)
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			taken[a] = true
		}
	}
	var out []netip.Addr
	for _, first := range []string{"10.244.1.1", "fd00:244::1"} {
		a := netip.MustParseAddr(first)
		for taken[a] {
			a = a.Next()
		}
		out = append(out, a)
	}
	if r.Chosen != nil {
		r.Chosen(out) // as the agent does: before they are stored
	}
	if os.Getenv(envKill) == "wired, not stored" {
		<-k.attached
		point("wired, not stored")
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return nil, err
	}
	return out, os.WriteFile(filepath.Join(k.dir, r.Handle), b, 0o644)
}

func (k *kernelRooms) read(handle string) ([]netip.Addr, error) {
	b, err := os.ReadFile(filepath.Join(k.dir, handle))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []netip.Addr
	if err == nil {
		err = json.Unmarshal(b, &out)
	}
	return out, err
}

func (k *kernelRooms) handles() ([]string, error) {
	entries, err := os.ReadDir(k.dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, err
}

func (k *kernelRooms) Release(_ context.Context, handle string) error {
	point("before Release")
	defer point("after Release")
	if err := os.Remove(filepath.Join(k.dir, handle)); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func (k *kernelRooms) Lookup(_ context.Context, handle string) ([]netip.Addr, error) {
	return k.read(handle)
}
func (k *kernelRooms) Handles(context.Context) ([]string, error) { return k.handles() }

// Pod reads the annotations of a pod from a file, if there is one.
func (k *kernelRooms) Pod(_ context.Context, _, name, _ string) (info cniserver.PodInfo, err error) {
	b, err := os.ReadFile(filepath.Join(k.dir, "..", "annotations-"+name))
	if errors.Is(err, os.ErrNotExist) {
		return info, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &info.Annotations)
	}
	return info, err
}

func (k *kernelRooms) Put(ep model.Endpoint) uint64 {
	point("before Put")
	k.mu.Lock()
	defer k.mu.Unlock()
	k.endpoints[ep.ContainerID] = ep
	k.revision++
	k.put[k.revision] = ep
	return k.revision
}

func (k *kernelRooms) Delete(containerID, _ string) uint64 {
	point("before Delete")
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.endpoints, containerID)
	k.revision++
	return k.revision
}

func (k *kernelRooms) Disconnect(context.Context, []netip.Addr) error {
	point("before Disconnect")
	defer point("after Disconnect")
	return nil
}

func (k *kernelRooms) HandOver(context.Context, string, string, []netip.Addr) error {
	point("before HandOver")
	defer point("after HandOver")
	return nil
}

func (k *kernelRooms) Settled(ctx context.Context, revision uint64) error {
	point("before Settled")
	defer point("after Settled")
	k.mu.Lock()
	ep := k.put[revision]
	k.mu.Unlock()
	for _, a := range ep.Addresses {
		dst := netip.PrefixFrom(a, a.BitLen()).String()
		out, err := exec.CommandContext(ctx, "nsenter", "--net="+os.Getenv(envNetns),
			"ip", "route", "replace", dst, "dev", ep.HostInterface, "proto", "109").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
	}
	return nil
}

func (k *kernelRooms) List() []model.Endpoint {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []model.Endpoint
	for _, ep := range k.endpoints {
		out = append(out, ep)
	}
	return out
}

// kernelInterfaces is felix/pod behind the server's interface.
type kernelInterfaces struct{ *kernelRooms }

func spec(w cniserver.InterfaceSpec) pod.Spec {
	return pod.Spec{
		ContainerID: w.ContainerID, Interface: w.Interface, NetNS: w.Netns, Namespace: w.Namespace, Pod: w.Pod,
		HostInterface: w.HostInterface, Addresses: w.Addresses, SourcePrefixes: w.SourcePrefixes,
		WithoutIPAM: w.WithoutIPAM, MAC: w.MAC, MTU: w.MTU, Forwarding: w.Forwarding,
	}
}

func (k kernelInterfaces) Attach(ctx context.Context, w cniserver.InterfaceSpec) (cniserver.InterfaceResult, error) {
	point("before Attach")
	defer point("after Attach")
	ep, err := k.plugger.Attach(ctx, spec(w))
	select {
	case k.attached <- struct{}{}:
	default:
	}
	return cniserver.InterfaceResult{HostMAC: pod.HostMAC.String(), MAC: ep.MAC}, err
}

func (k kernelInterfaces) Detach(ctx context.Context, w cniserver.InterfaceSpec) error {
	point("before Detach")
	defer point("after Detach")
	return k.plugger.Detach(ctx, w.ContainerID, w.Interface, w.HostInterface)
}

func (k kernelInterfaces) Check(ctx context.Context, w cniserver.InterfaceSpec) error {
	return k.plugger.Check(ctx, spec(w))
}

func (k kernelInterfaces) List(ctx context.Context) ([]model.Endpoint, error) {
	return k.plugger.List(ctx)
}

// machine is a node: a network namespace, a directory, the plugin, and at times
// an agent.
type machine struct {
	t      *testing.T
	dir    string
	netns  string
	cni    *libcni.CNIConfig
	agent  *exec.Cmd
	log    bytes.Buffer
	stdin  interface{ Close() error }
	enter  func(func())
	binDir string
}

var pluginDir string // holds the plugin once a test has built it

var plugin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "muslin-cni-test-")
	if err != nil {
		return "", err
	}
	pluginDir = dir
	_, err = image.Build(context.Background(), image.BuildOptions{Root: "../../..", Out: dir}, []image.Program{image.Plugin})
	return dir, err
})

func newMachine(t *testing.T) *machine {
	t.Helper()
	bin, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, dir: t.TempDir(), binDir: bin}
	m.netns, m.enter = newNetns(t)
	m.inNode("ip", "link", "set", "lo", "up")
	m.inNode("ip", "address", "add", "192.0.2.1/32", "dev", "lo")
	m.inNode("ip", "address", "add", "2001:db8::1/128", "dev", "lo")
	m.cni = libcni.NewCNIConfigWithCacheDir([]string{bin, "/usr/lib/cni"}, filepath.Join(m.dir, "cache"), nil)
	t.Cleanup(func() {
		if m.agent != nil {
			m.stopAgent()
		}
		if t.Failed() {
			t.Logf("agents said:\n%s", m.log.String())
		}
	})
	return m
}

// newNetns makes a namespace without a name, held by an open file, and a
// function that runs another one on a thread inside.
func newNetns(t testing.TB) (path string, enter func(func())) {
	t.Helper()
	type made struct {
		file *os.File
		err  error
	}
	ready, work := make(chan made), make(chan func())
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- made{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		ready <- made{f, err}
		for f := range work {
			f()
		}
	}()
	m := <-ready
	if m.err != nil {
		t.Fatalf("make network namespace: %v", m.err)
	}
	t.Cleanup(func() { close(work); m.file.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), m.file.Fd()), func(f func()) {
		done := make(chan struct{})
		work <- func() { defer close(done); f() }
		<-done
	}
}

// startAgent starts an agent that kills itself at a point, "" for never, and
// waits until it serves.
func (m *machine) startAgent(kill string) {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envAgent+"="+m.dir, envNetns+"="+m.netns, envKill+"="+kill)
	cmd.Stderr = &m.log
	stdin, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.agent, m.stdin = cmd, stdin
	line := make([]byte, 6)
	if _, err := stdout.Read(line); err != nil || !strings.HasPrefix(string(line), "ready") {
		_ = cmd.Wait()
		m.agent = nil
		m.t.Fatalf("agent did not start: %q, %v", line, err)
	}
}

func (m *machine) stopAgent() {
	m.stdin.Close()
	_ = m.agent.Wait()
	m.agent = nil
}

// awaitKilled waits for an agent that has killed itself.
func (m *machine) awaitKilled() {
	m.t.Helper()
	_ = m.agent.Wait()
	if ws, ok := m.agent.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		m.t.Errorf("agent ended with %v, want killed", m.agent.ProcessState)
	}
	m.agent = nil
}

// list is a network configuration of this machine's plugin and more.
func (m *machine) list(version string, more ...string) *libcni.NetworkConfigList {
	m.t.Helper()
	plugins := []string{fmt.Sprintf(`{"type":"muslin","socket":%q,"spool":%q,"ipam":{"type":"muslin-ipam"}}`,
		filepath.Join(m.dir, "agent.sock"), filepath.Join(m.dir, "spool"))}
	plugins = append(plugins, more...)
	l, err := libcni.ConfListFromBytes([]byte(fmt.Sprintf(`{"cniVersion":%q,"name":"k8s-pod-network","plugins":[%s]}`,
		version, strings.Join(plugins, ","))))
	if err != nil {
		m.t.Fatal(err)
	}
	return l
}

func runtimeConf(container, pod, netns string) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: container, NetNS: netns, IfName: "eth0"}
	if pod != "" {
		rt.Args = [][2]string{
			{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "ns"}, {"K8S_POD_NAME", pod}, {"K8S_POD_INFRA_CONTAINER_ID", container},
		}
	}
	return rt
}

// inNode runs a command in the node's namespace.
func (m *machine) inNode(args ...string) string { return inNetns(m.t, m.netns, args...) }

func inNetns(t *testing.T, netns string, args ...string) string {
	t.Helper()
	var complaints bytes.Buffer // iproute2 has some about names of namespaces that others left
	cmd := exec.Command("nsenter", append([]string{"--net=" + netns}, args...)...)
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s%s", args, err, out, complaints.String())
	}
	return string(out)
}

// ping reaches a pod from the node, and shows what both sides know when it does
// not. It sends until one packet is answered: the kernel makes an IPv6 address
// usable on a work queue, a moment after it has confirmed it.
func (m *machine) ping(podNS, addr string) {
	m.t.Helper()
	if exec.Command("nsenter", "--net="+m.netns, "ping", "-c1", "-i0.2", "-w20", addr).Run() == nil {
		return
	}
	m.t.Errorf("%s does not answer", addr)
	for _, side := range []string{m.netns, podNS} {
		for _, what := range []string{"link", "address", "route", "-6 route", "neigh", "-6 neigh", "-s -6 maddress"} {
			args := append([]string{"--net=" + side, "ip"}, strings.Fields(what)...)
			out, _ := exec.Command("nsenter", args...).CombinedOutput()
			m.t.Logf("%s ip %s:\n%s", side, what, out)
		}
	}
}

// wantNothing demands that no address, link, route or record is left, once what
// is recorded is done.
func (m *machine) wantNothing() {
	m.t.Helper()
	waitFor(m.t, "the recorded deletes", func() bool {
		entries, err := os.ReadDir(filepath.Join(m.dir, "spool"))
		return errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0
	})
	for _, dir := range []string{"handles", "spool"} {
		entries, err := os.ReadDir(filepath.Join(m.dir, dir))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			m.t.Error(err)
		}
		for _, e := range entries {
			m.t.Errorf("left in %s: %s", dir, e.Name())
		}
	}
	for _, args := range [][]string{{"ip", "-o", "link", "show", "type", "veth"}, {"ip", "route"}, {"ip", "-6", "route", "show", "proto", "109"}} {
		if out := m.inNode(args...); out != "" {
			m.t.Errorf("%v shows %s", args, out)
		}
	}
}

func TestLibcniDrivesEveryVersion(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	for _, version := range cniserver.Versions {
		t.Run(version, func(t *testing.T) {
			m := &machine{t: t, dir: m.dir, netns: m.netns, cni: m.cni, log: bytes.Buffer{}}
			l := m.list(version)
			podNS, _ := newNetns(t)
			rt := runtimeConf("c-"+strings.ReplaceAll(version, ".", "-"), "a", podNS)
			if _, err := m.cni.ValidateNetworkList(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			res, err := m.cni.AddNetworkList(t.Context(), l, rt)
			if err != nil {
				t.Fatal(err)
			}
			r, err := types100.GetResult(res)
			if err != nil {
				t.Fatal(err)
			}
			if res.Version() != version || len(r.IPs) != 2 {
				t.Errorf("result in %s: %+v", res.Version(), r)
			}
			m.ping(podNS, r.IPs[0].Address.IP.String())
			m.ping(podNS, r.IPs[1].Address.IP.String())
			if version != "0.3.1" {
				if err := m.cni.CheckNetworkList(t.Context(), l, rt); err != nil {
					t.Errorf("CHECK: %v", err)
				}
				inNetns(t, podNS, "ip", "address", "flush", "dev", "eth0")
				if err := m.cni.CheckNetworkList(t.Context(), l, rt); err == nil || !strings.Contains(err.Error(), "eth0") {
					t.Errorf("CHECK of a pod without addresses: %v", err)
				}
			}
			if version == "1.1.0" {
				if err := m.cni.GetStatusNetworkList(t.Context(), l); err != nil {
					t.Errorf("STATUS: %v", err)
				}
			}
			for range 2 {
				if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
					t.Errorf("DEL: %v", err)
				}
			}
			m.wantNothing()
		})
	}
}

func TestGCByLibcni(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	l := m.list("1.1.0")
	var keep *libcni.RuntimeConf
	for _, id := range []string{"c1", "c2", "c3"} {
		podNS, _ := newNetns(t)
		keep = runtimeConf(id, id, podNS)
		if _, err := m.cni.AddNetworkList(t.Context(), l, keep); err != nil {
			t.Fatal(err)
		}
	}
	// The runtime has lost its own memory of the others.
	if err := os.RemoveAll(filepath.Join(m.dir, "cache")); err != nil {
		t.Fatal(err)
	}
	valid := &libcni.GCArgs{}
	valid.ValidAttachments = append(valid.ValidAttachments, gcAttachment("c3"))
	if err := m.cni.GCNetworkList(t.Context(), l, valid); err != nil {
		t.Fatal(err)
	}
	if links := m.inNode("ip", "-o", "link", "show", "type", "veth"); strings.Count(links, ": cali") != 1 {
		t.Errorf("links after GC: %s", links)
	}
	if err := m.cni.DelNetworkList(t.Context(), l, keep); err != nil {
		t.Error(err)
	}
	m.wantNothing()
}

func TestChainedPlugins(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	// Without portmap for CHECK: Debian's 1.1.1 looks for the IPv4 rule among
	// those of IPv6.
	tuning := `{"type":"tuning","sysctl":{"net.core.somaxconn":"500"},"dataDir":` + fmt.Sprintf("%q", filepath.Join(m.dir, "tuning")) + `}`
	checked := m.list("1.0.0", tuning)
	l := m.list("1.0.0", tuning, `{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}`)
	podNS, _ := newNetns(t)
	rt := runtimeConf("c1", "a", podNS)
	rt.CapabilityArgs = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}}
	var err error
	m.enter(func() { _, err = m.cni.AddNetworkList(t.Context(), l, rt) })
	if err != nil {
		t.Fatal(err)
	}
	if rules := m.inNode("iptables-save", "-t", "nat"); !strings.Contains(rules, "--to-destination 10.244.1.1:80") {
		t.Errorf("portmap did not find the pod's address:\n%s", rules)
	}
	m.enter(func() { err = m.cni.CheckNetworkList(t.Context(), checked, rt) })
	if err != nil {
		t.Errorf("CHECK: %v", err)
	}
	m.enter(func() { err = m.cni.DelNetworkList(t.Context(), l, rt) })
	if err != nil {
		t.Errorf("DEL: %v", err)
	}
	m.wantNothing()
}

func TestAgentKilledAtEachStepOfAdd(t *testing.T) {
	for _, at := range []string{
		"before Assign", "wired, not stored", "after Assign", "before Attach", "after Attach", "before Disconnect", "after Disconnect", "before Put", "before Settled", "after Settled", "before HandOver", "after HandOver",
	} {
		t.Run(at, func(t *testing.T) {
			m := newMachine(t)
			l := m.list("1.0.0")
			podNS, _ := newNetns(t)
			rt := runtimeConf("c1", "a", podNS)
			m.startAgent(at)
			_, err := m.cni.AddNetworkList(t.Context(), l, rt)
			if err == nil || !strings.Contains(err.Error(), "agent.sock") {
				t.Errorf("ADD: %v, want an error that names the socket", err)
			}
			m.awaitKilled()
			// The runtime gives the sandbox up while no agent is there.
			if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
				t.Errorf("DEL without an agent: %v", err)
			}
			m.startAgent("")
			m.wantNothing()
			// Or it tries again.
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
				t.Errorf("second ADD: %v", err)
			}
			if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
				t.Error(err)
			}
			m.wantNothing()
		})
	}
}

func TestAgentKilledAtEachStepOfDel(t *testing.T) {
	for _, at := range []string{"before Delete", "before Detach", "after Detach", "before Release", "after Release"} {
		t.Run(at, func(t *testing.T) {
			m := newMachine(t)
			l := m.list("1.0.0")
			podNS, _ := newNetns(t)
			rt := runtimeConf("c1", "a", podNS)
			m.startAgent(at)
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
				t.Fatal(err)
			}
			if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
				t.Errorf("DEL: %v", err)
			}
			m.awaitKilled()
			m.startAgent("")
			m.wantNothing()
		})
	}
}

func TestAgentRestartKeepsPods(t *testing.T) {
	m := newMachine(t)
	l := m.list("1.0.0")
	podNS, _ := newNetns(t)
	rt := runtimeConf("c1", "a", podNS)
	m.startAgent("")
	first, err := m.cni.AddNetworkList(t.Context(), l, rt)
	if err != nil {
		t.Fatal(err)
	}
	m.stopAgent()
	m.ping(podNS, "10.244.1.1")
	m.startAgent("")
	if err := m.cni.CheckNetworkList(t.Context(), l, rt); err != nil {
		t.Errorf("CHECK after the restart: %v", err)
	}
	again, err := m.cni.AddNetworkList(t.Context(), l, rt)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(first)
	if b, _ := json.Marshal(again); !bytes.Equal(a, b) {
		t.Errorf("ADD after the restart: %s, want %s", b, a)
	}
	if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
		t.Error(err)
	}
	m.wantNothing()
}

func TestTheKernelSaysNo(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	l := m.list("1.0.0")
	t.Run("netns missing", func(t *testing.T) {
		rt := runtimeConf("c1", "a", filepath.Join(m.dir, "gone"))
		if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err == nil || !strings.Contains(err.Error(), rt.NetNS) {
			t.Errorf("ADD: %v", err)
		}
		m.wantNothing()
	})
	t.Run("netns is the node's", func(t *testing.T) {
		if _, err := m.cni.AddNetworkList(t.Context(), l, runtimeConf("c1", "a", m.netns)); err == nil || !strings.Contains(err.Error(), "node's own") {
			t.Errorf("ADD: %v", err)
		}
		m.wantNothing()
	})
	t.Run("interface name taken", func(t *testing.T) {
		podNS, _ := newNetns(t)
		inNetns(t, podNS, "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other")
		if _, err := m.cni.AddNetworkList(t.Context(), l, runtimeConf("c1", "a", podNS)); err == nil || !strings.Contains(err.Error(), "eth0") {
			t.Errorf("ADD: %v", err)
		}
		m.wantNothing()
	})
	t.Run("netns vanishes before DEL", func(t *testing.T) {
		rt := runtimeConf("c1", "a", "")
		func() {
			bound := filepath.Join(m.dir, "bound")
			if err := os.WriteFile(bound, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			podNS, _ := newNetns(t)
			if err := unix.Mount(podNS, bound, "", unix.MS_BIND, ""); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = unix.Unmount(bound, unix.MNT_DETACH) }()
			rt.NetNS = bound
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
				t.Fatal(err)
			}
		}()
		if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
			t.Errorf("DEL: %v", err)
		}
		m.wantNothing()
	})
	t.Run("two sandboxes of one pod", func(t *testing.T) {
		oldNS, _ := newNetns(t)
		newNS, _ := newNetns(t)
		older, newer := runtimeConf("old", "a", oldNS), runtimeConf("new", "a", newNS)
		for _, rt := range []*libcni.RuntimeConf{older, newer} {
			if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.cni.DelNetworkList(t.Context(), l, older); err != nil {
			t.Error(err)
		}
		if err := m.cni.CheckNetworkList(t.Context(), l, newer); err != nil {
			t.Errorf("CHECK of the newer one after the older one's DEL: %v", err)
		}
		if err := m.cni.DelNetworkList(t.Context(), l, newer); err != nil {
			t.Error(err)
		}
		m.wantNothing()
	})
}

func TestManyPodsAtOnce(t *testing.T) {
	m := newMachine(t)
	m.startAgent("")
	l := m.list("1.0.0")
	var all sync.WaitGroup
	for i := range 16 {
		podNS, _ := newNetns(t)
		rt := runtimeConf(fmt.Sprint("c", i), fmt.Sprint("p", i), podNS)
		all.Go(func() {
			for range 3 {
				if _, err := m.cni.AddNetworkList(t.Context(), l, rt); err != nil {
					t.Errorf("ADD %s: %v", rt.ContainerID, err)
				}
				if err := m.cni.DelNetworkList(t.Context(), l, rt); err != nil {
					t.Errorf("DEL %s: %v", rt.ContainerID, err)
				}
			}
		})
	}
	all.Wait()
	m.wantNothing()
}

// The plugin killed while it waits: the agent sees the connection end and goes
// back on its own.
func TestPluginKilledMidway(t *testing.T) {
	n := start(t, newRooms())
	bin, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	podNS, _ := newNetns(t)
	for _, step := range []string{"Assign", "Attach", "Disconnect", "Settled", "HandOver"} {
		reached := make(chan struct{})
		n.setHook(func(ctx context.Context, p string) error {
			if p == "after "+step {
				close(reached)
				<-ctx.Done()
			}
			return ctx.Err()
		})
		cmd := exec.Command(filepath.Join(bin, "muslin"))
		cmd.Env = []string{
			"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" + podNS, "CNI_IFNAME=eth0", "CNI_PATH=" + bin,
			"CNI_ARGS=K8S_POD_NAMESPACE=ns;K8S_POD_NAME=a",
		}
		conf := strings.Replace(netconf, "{", fmt.Sprintf(`{"socket":%q,`, n.socket), 1)
		cmd.Stdin = strings.NewReader(conf)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-reached
		n.setHook(nil)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		waitFor(t, "the undo after "+step, func() bool { return slices.Equal(n.left(), nil) })
	}
}

func gcAttachment(id string) types.GCAttachment {
	return types.GCAttachment{ContainerID: id, IfName: "eth0"}
}

const maxRSS = 12 << 10 // kB

func TestPluginStaysSmallInMemory(t *testing.T) {
	n := start(t, newRooms())
	bin, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	podNS, _ := newNetns(t)
	inside, goOn := make(chan struct{}), make(chan struct{})
	n.setHook(func(_ context.Context, p string) error {
		if p == "after Settled" {
			close(inside)
			<-goOn
		}
		return nil
	})
	cmd := exec.Command(filepath.Join(bin, "muslin"))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" + podNS, "CNI_IFNAME=eth0", "CNI_PATH=" + bin}
	cmd.Stdin = strings.NewReader(strings.Replace(netconf, "{", fmt.Sprintf(`{"socket":%q,`, n.socket), 1))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-inside
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
	close(goOn)
	if waitErr := cmd.Wait(); err != nil || waitErr != nil {
		t.Fatal(err, waitErr)
	}
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	var kB int
	if _, err := fmt.Sscan(line, &kB); err != nil {
		t.Fatal(err)
	}
	t.Logf("plugin at its highest: %d kB", kB)
	if kB > maxRSS {
		t.Errorf("plugin took %d kB, at most %d are allowed", kB, maxRSS)
	}
}
