//go:build skew

package skew

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// release is where programs agent, cni and controller are, and the manifests.
type release struct{ version, programs, manifests string }

func (r release) program(name string) string { return filepath.Join(r.programs, name) }

// both gives the release before and this tree.
func both(t *testing.T) (previous, this release) {
	t.Helper()
	dir := os.Getenv("MUSLIN_PREVIOUS")
	if _, err := os.Stat(filepath.Join(dir, "muslin.yaml")); err != nil {
		t.Fatalf("MUSLIN_PREVIOUS is not the folder that make previous writes (%v): run make skew", err)
	}
	return release{"previous", dir, filepath.Join(dir, "muslin.yaml")},
		release{"dev", kubetest.Programs(t, "./cmd/agent", "./cmd/cni", "./cmd/controller"), filepath.Join(kubetest.Root(), "manifests/muslin.yaml")}
}

// cluster is an API server with the manifests of a release, the roles of this tree, and
// a pool.
func cluster(t *testing.T, crds release) *kubetest.Server {
	t.Helper()
	s := kubetest.Start(t)
	s.MustKubectl(t, "", "apply", "--server-side", "-f", crds.manifests)
	base := filepath.Join(kubetest.Root(), "manifests/base")
	s.MustKubectl(t, "", "apply", "--server-side", "-f", filepath.Join(base, "agent-rbac.yaml"), "-f", filepath.Join(base, "controller-rbac.yaml"))
	established(t, s)
	s.MustKubectl(t, "{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: pods}, spec: {cidr: 10.77.0.0/16}}", "apply", "-f", "-")
	return s
}

// node is one with the rights that an agent's pod has there.
func node(t *testing.T, s *kubetest.Server, name string) *kubetest.Node {
	t.Helper()
	n := s.NewNode(t, name)
	kubetest.WithToken(t, n.File("kubeconfig"), n.File("kubeconfig"), s.ConfigOfPod(t, "muslin-system", "muslin-agent", name).BearerToken)
	return n
}

// wire has nodes reach each other.
func wire(t *testing.T, s *kubetest.Server, nodes ...*kubetest.Node) {
	t.Helper()
	rack := s.Netns + "-rack"
	must(t, exec.Command("ip", "netns", "add", rack))
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", rack).Run() })
	must(t, exec.Command("ip", "-n", rack, "link", "add", "br0", "type", "bridge"))
	must(t, exec.Command("ip", "-n", rack, "link", "set", "br0", "up"))
	for _, n := range nodes {
		port := "to-" + n.Name
		must(t, n.Exec("ip", "link", "set", "rack", "netns", rack, "name", port))
		must(t, exec.Command("ip", "-n", rack, "link", "set", port, "master", "br0", "up"))
	}
}

func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// run starts an agent and waits until it is ready.
func run(t *testing.T, n *kubetest.Node, r release) {
	t.Helper()
	n.StartAgent(r.program("agent"))
	n.Await("ready", func() bool { code, _, err := n.Get("/readyz"); return err == nil && code == 200 })
	if _, status, err := n.Get("/status"); err != nil || !strings.Contains(status, fmt.Sprintf(`"version":%q`, r.version)) && !strings.Contains(status, fmt.Sprintf(`"version": %q`, r.version)) {
		t.Fatalf("not of release %s: %v %s", r.version, err, status)
	}
}

// stop ends an agent as a rollout does.
func stop(t *testing.T, n *kubetest.Node) {
	t.Helper()
	n.Signal(syscall.SIGTERM)
	for end := time.Now().Add(3 * time.Minute); !n.Ended(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s does not end", n.Name)
		}
	}
}

// cni runs a plugin, and fails the test where it fails.
func cni(t *testing.T, n *kubetest.Node, r release, verb, pod string) string {
	t.Helper()
	out, err := n.CNI(r.program("cni"), verb, pod)
	if err != nil {
		t.Fatalf("%s by the plugin of %s: %v: %s\n%s", verb, r.version, err, out, n.Log())
	}
	return out
}

// add wires a new pod, and gives its name and its address.
func add(t *testing.T, n *kubetest.Node, r release) (pod, address string) {
	t.Helper()
	pod = n.Pod()
	var result struct {
		IPs []struct{ Address string }
	}
	out := cni(t, n, r, "ADD", pod)
	if err := json.Unmarshal([]byte(out), &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	address, _, _ = strings.Cut(result.IPs[0].Address, "/")
	return pod, address
}

// stored says whether IPAM has something of a node or a pod.
func stored(t *testing.T, s *kubetest.Server, name string) bool {
	t.Helper()
	return strings.Contains(s.MustKubectl(t, "", "get", "ipamblocks,ipamhandles,blockaffinities", "-o", "json"), name)
}

func free(t *testing.T, s *kubetest.Server, n *kubetest.Node, pod string) {
	t.Helper()
	n.Await("the address of "+pod+" is free", func() bool { return !stored(t, s, pod) })
}

// TestPluginAndAgent: a pod that the one release wired is checked and taken off by the
// other, a DEL that a plugin records while no agent runs is carried out by the next, and
// each agent works with the objects of either release's CRDs.
func TestPluginAndAgent(t *testing.T) {
	previous, this := both(t)
	for _, c := range []struct {
		name                      string
		crds, plugin, agent, next release
	}{
		{"plugin of before", this, previous, this, this},
		{"agent of before", this, this, previous, previous},
		{"upgrade", this, previous, previous, this},
		{"upgrade, CRDs last", previous, previous, previous, this},
		{"rollback", this, this, this, previous},
		{"rollback, CRDs of before", previous, this, this, previous},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster(t, c.crds)
			n := node(t, s, "n1")
			run(t, n, c.agent)
			if c.next == previous { // with the roles of before, while the agent of this tree runs
				s.MustKubectl(t, "", "apply", "--server-side", "-f", previous.manifests)
			}
			stays, address := add(t, n, c.plugin)
			goes, _ := add(t, n, c.plugin)
			recorded, _ := add(t, n, c.plugin)
			cni(t, n, c.plugin, "CHECK", stays)
			cni(t, n, c.plugin, "DEL", goes)
			free(t, s, n, goes)
			stop(t, n)
			cni(t, n, c.plugin, "DEL", recorded)
			run(t, n, c.next)
			free(t, s, n, recorded)
			for _, plugin := range []release{previous, this} {
				cni(t, n, plugin, "CHECK", stays)
			}
			must(t, n.Exec("ping", "-c", "1", "-W", "60", address))
			cni(t, n, this, "DEL", stays)
			free(t, s, n, stays)
		})
	}
}

// stream pings without end, and writes each answer to a file.
type stream struct {
	cmd  *exec.Cmd
	file string
}

func ping(t *testing.T, n *kubetest.Node, pod, address string) *stream {
	t.Helper()
	n.Await(pod+" reaches "+address, func() bool {
		return exec.Command("ip", "netns", "exec", pod, "ping", "-c", "1", "-W", "1", address).Run() == nil
	})
	s := &stream{cmd: exec.Command("nsenter", "--net=/run/netns/"+pod, "--", "ping", "-n", "-i", "0.02", address), file: n.File("ping")}
	out, err := os.Create(s.file)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	s.cmd.Stdout = out
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.cmd.Process.Kill(); _ = s.cmd.Wait() })
	return s
}

// end fails the test if a packet before the last one that was answered was lost; those
// under way at the end are nobody's fault.
func (s *stream) end(t *testing.T) {
	t.Helper()
	_ = s.cmd.Process.Signal(syscall.SIGINT)
	_ = s.cmd.Wait()
	text, err := os.ReadFile(s.file)
	if err != nil {
		t.Fatal(err)
	}
	answered, last := map[int]bool{}, 0
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, "icmp_seq="); ok && strings.Contains(line, " bytes from ") {
			var seq int
			if _, err := fmt.Sscan(rest, &seq); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			answered[seq], last = true, max(last, seq)
		}
	}
	if lost := last - len(answered); lost > 0 || last < 10 {
		t.Errorf("%v: %d of %d packets lost", s.cmd.Args, lost, last)
	}
	t.Logf("%d packets, %d lost", last, last-len(answered))
}

// TestAgentsOfOneMesh: agents of both releases have each other's routes, and one that is
// upgraded, rolled back and upgraded by force loses no packet of its pods'.
func TestAgentsOfOneMesh(t *testing.T) {
	previous, this := both(t)
	s := cluster(t, this)
	a, b := node(t, s, "n1"), node(t, s, "n2")
	wire(t, s, a, b)
	a.StartAgent(previous.program("agent"))
	run(t, b, this)
	a.Await("ready", func() bool { code, _, err := a.Get("/readyz"); return err == nil && code == 200 })
	podA, addressA := add(t, a, previous)
	podB, addressB := add(t, b, this)
	streams := []*stream{ping(t, a, podA, addressB), ping(t, b, podB, addressA)}
	for _, to := range []release{this, previous} {
		stop(t, a)
		run(t, a, to)
		for pod, address := range map[string]string{podA: addressB, podB: addressA} {
			must(t, exec.Command("ip", "netns", "exec", pod, "ping", "-c", "20", "-i", "0.1", "-W", "60", address))
		}
	}
	a.StopAgent()
	run(t, a, this)
	must(t, exec.Command("ip", "netns", "exec", podA, "ping", "-c", "20", "-i", "0.1", "-W", "60", addressB))
	for _, s := range streams {
		s.end(t)
	}
}

// startController runs a controller with the rights of its account, beside an agent.
func startController(t *testing.T, s *kubetest.Server, n *kubetest.Node, r release) {
	t.Helper()
	kubetest.WithToken(t, n.File("kubeconfig"), n.File("controller.kubeconfig"), strings.TrimSpace(s.MustKubectl(t, "", "-n", "muslin-system", "create", "token", "muslin-controller")))
	log, err := os.Create(n.File("controller.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := n.Exec(r.program("controller"))
	cmd.Env = append(os.Environ(), "KUBECONFIG="+n.File("controller.kubeconfig"), "POD_NAME=one")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("controller: %s", text[max(0, len(text)-4000):])
		}
	})
}

// TestControllerAndAgents: what a deleted node had is free whichever release its agent and
// the controller are of, and a node that stays keeps what it has.
func TestControllerAndAgents(t *testing.T) {
	previous, this := both(t)
	for _, c := range []struct {
		name                    string
		crds, controller, agent release
	}{
		{"controller of before", this, previous, this},
		{"agents of before", this, this, previous},
		{"CRDs of before", previous, this, this},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := cluster(t, c.crds)
			stays, leaves := node(t, s, "stays"), node(t, s, "leaves")
			wire(t, s, stays, leaves)
			stays.StartAgent(c.agent.program("agent"))
			run(t, leaves, c.agent)
			startController(t, s, stays, c.controller)
			kept, _ := add(t, stays, c.agent)
			gone, _ := add(t, leaves, c.agent)
			if !stored(t, s, gone) || !stored(t, s, "host:leaves") {
				t.Fatal("nothing is stored of what is to be freed")
			}
			leaves.StopAgent()
			s.MustKubectl(t, "", "delete", "node", "leaves")
			// As Kubernetes' own collector does, which does not run here.
			s.MustKubectl(t, "", "delete", "pod", gone, "--force", "--grace-period=0")
			s.MustKubectl(t, "", "-n", "muslin-system", "delete", "pod", "muslin-agent-leaves", "--force", "--grace-period=0")
			stays.Await("all that the node had is free", func() bool { return !stored(t, s, "leaves") })
			if !stored(t, s, kept) {
				t.Error("the node that stays has lost its pod's address")
			}
			cni(t, stays, c.agent, "CHECK", kept)
			cni(t, stays, c.agent, "DEL", kept)
			free(t, s, stays, kept)
		})
	}
}
