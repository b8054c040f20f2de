package manifests_test

import (
	"bytes"
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

// With the component policy-relay a real agent has pods of other nodes from a real
// controller, each with the rights of its service account and no more: those that its
// policies ask for, and it lists no pods but its own node's. What it has outlives the
// controller, and the agent.
func TestPolicyRelay(t *testing.T) {
	t.Parallel()
	s, requested := withRelay(t)
	s.MustKubectl(t, `{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Node, metadata: {name: elsewhere}},
  {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: v4}, spec: {cidr: 10.77.0.0/16}},
  {apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {nodeToNodeMeshEnabled: false}},
  {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: client, namespace: default},
    spec: {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}}]}`, "apply", "-f", "-")
	programs := kubetest.Programs(t, "./cmd/agent", "./cmd/cni", "./cmd/controller")
	n := s.NewNode(t, "relayed")
	relayed(t, s, n)
	client := remotePod(t, s, "client", "client", "10.99.0.5")
	remotePod(t, s, "other", "other", "10.99.0.7")
	end := startController(t, n, filepath.Join(programs, "controller"))
	start := func() {
		n.StartAgent("env", "MUSLIN_POLICY_RELAY="+n.File("relay-token"), filepath.Join(programs, "agent"))
		n.Await("ready", func() bool { code, _, err := n.Get("/readyz"); return err == nil && code == 200 })
	}
	shows := func(what string, want ...string) {
		t.Helper()
		n.Await(what, func() bool {
			_, text, err := n.Get("/show")
			for _, w := range want {
				if err != nil || !strings.Contains(text, w) {
					return false
				}
			}
			return true
		})
	}
	start()
	plug := func(name string) {
		t.Helper()
		if out, err := n.CNI(filepath.Join(programs, "cni"), "ADD", name); err != nil {
			t.Fatalf("%v %s\n%s", err, out, n.Log())
		}
	}
	plug(n.Pod())
	shows("the peer that the policy names", client)
	more := remotePod(t, s, "client2", "client", "10.99.0.6")
	shows("a peer that came", client, more)
	s.MustKubectl(t, leasedPod, "apply", "-f", "-")
	shows("a peer whose block has its address, and whose status has none yet", "10.77.3.1")
	changes, quiet := monitored(t, n)
	n.StopAgent()
	start()
	shows("the same peers after a restart", client, more, "10.77.3.1")
	quiet()
	if text := changes.String(); strings.Contains(text, "delete element inet muslin-policy") {
		t.Errorf("a restart took peers away for a while:\n%s", text)
	}
	if _, text, _ := n.Get("/show"); strings.Contains(text, "10.99.0.7") {
		t.Errorf("a pod that no policy names is in\n%s", text)
	}
	n.Await("what it has is on disk", func() bool { _, err := os.Stat(n.File("state/policy-pods")); return err == nil })
	end()
	plug(n.Pod())
	shows("the peer while no relay answers", client)
	n.StopAgent()
	start()
	shows("the peer after a restart while no relay answers", client)
	plug(n.Pod())
	for _, r := range requested("system:serviceaccount:muslin-system:muslin-agent") {
		if r.Resource == "pods" && (r.Verb == "list" || r.Verb == "watch") && !strings.Contains(r.URI, "spec.nodeName") {
			t.Errorf("the agent asks for all pods: %s", r.URI)
		}
		if !r.Allowed {
			t.Errorf("the agent may not %s %s %s", r.Verb, r.Resource, r.URI)
		}
	}
	for _, r := range requested("system:serviceaccount:muslin-system:muslin-controller") {
		if !r.Allowed {
			t.Errorf("the controller may not %s %s %s", r.Verb, r.Resource, r.URI)
		}
	}
}

// withRelay is a server with what an installation with the policy relay has applied, and what
// was requested of it.
func withRelay(t *testing.T) (s *kubetest.Server, requested func(user string) []kubetest.Request) {
	t.Helper()
	s, requested = kubetest.StartAudited(t)
	s.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests/crds")
	s.MustKubectl(t, "", "apply", "-k", kubetest.Root()+"/manifests/overlays/policy-relay")
	s.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=120s")
	return s, requested
}

// relayed gives a node's agent, and the controller beside it, the rights of their service accounts, and the
// agent a token for the policy relay.
func relayed(t *testing.T, s *kubetest.Server, n *kubetest.Node) {
	t.Helper()
	c := s.ConfigOfPod(t, "muslin-system", "muslin-agent", n.Name)
	kubetest.WithToken(t, n.File("kubeconfig"), n.File("controller.kubeconfig"), strings.TrimSpace(s.MustKubectl(t, "", "-n", "muslin-system", "create", "token", "muslin-controller", "--duration=5h")))
	kubetest.WithToken(t, n.File("kubeconfig"), n.File("kubeconfig"), c.BearerToken)
	carrier := "muslin-agent-" + n.Name
	uid := s.MustKubectl(t, "", "-n", "muslin-system", "get", "pod", carrier, "-o", "jsonpath={.metadata.uid}")
	token := s.MustKubectl(t, "", "-n", "muslin-system", "create", "token", "muslin-agent", "--audience=muslin-relay", "--duration=5h",
		"--bound-object-kind=Pod", "--bound-object-name="+carrier, "--bound-object-uid="+uid)
	if err := os.WriteFile(n.File("relay-token"), []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
}

// leasedPod is a pod whose ADD is not answered yet. The time is one that no pod is
// younger than.
const leasedPod = `{apiVersion: v1, kind: List, items: [
  {apiVersion: v1, kind: Pod, metadata: {name: early, namespace: default, labels: {app: client}}, spec: {nodeName: elsewhere, containers: [{name: c, image: none}]}},
  {apiVersion: projectcalico.org/v3, kind: IPAMBlock, metadata: {name: 10-77-3-0-30}, spec: {cidr: 10.77.3.0/30, affinity: "host:elsewhere", strictAffinity: false,
    deleted: false, unallocated: [0, 2, 3], allocations: [null, 0, null, null], attributes: [{handle_id: k8s-pod-network.early,
      secondary: {node: elsewhere, namespace: default, pod: early, timestamp: "2100-01-01 00:00:00 +0000 UTC"}}]}}]}`

// monitored follows the changes of nftables of a node until end is called.
func monitored(t *testing.T, n *kubetest.Node) (changes *bytes.Buffer, end func()) {
	t.Helper()
	changes = new(bytes.Buffer)
	cmd := n.Exec("nft", "monitor")
	cmd.Stdout = changes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // until it listens: what it misses is not seen
	return changes, func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
}

// remotePod is one of another node, with an address, which it gives.
func remotePod(t *testing.T, s *kubetest.Server, name, app, address string) string {
	t.Helper()
	s.MustKubectl(t, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: default, labels: {app: %s}}, spec: {nodeName: elsewhere, containers: [{name: c, image: none}]}}`, name, app), "apply", "-f", "-")
	s.MustKubectl(t, "", "patch", "pod", name, "--subresource=status", "-p", fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, address, address))
	return address
}

// startController runs a controller beside the agent of a node; the function kills it.
func startController(t *testing.T, n *kubetest.Node, program string) func() {
	t.Helper()
	log, err := os.Create(n.File("controller.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := n.Exec(program)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+n.File("controller.kubeconfig"), "POD_NAME=one", "MUSLIN_RELAY_ADDR="+n.Address+":5473")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("controller: %s", text[max(0, len(text)-4000):])
		}
	})
	end := func() { kill(cmd) } // nsenter becomes the program
	t.Cleanup(end)
	return end
}

func kill(cmd *exec.Cmd) {
	if cmd.ProcessState == nil {
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait()
	}
}
