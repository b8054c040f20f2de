package scenario

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/hack/lab"
	"github.com/muslin-net/muslin/hack/lab/topology"
)

// podCIDRs are what kube-controller-manager would hand out with
// --allocate-node-cidrs: so small that five pods fill a node.
var podCIDRs = map[string][]netip.Prefix{
	"n1": {netip.MustParsePrefix("10.60.1.0/29"), netip.MustParsePrefix("fd00:60:0:1::/125")},
	"n2": {netip.MustParsePrefix("10.60.2.0/29"), netip.MustParsePrefix("fd00:60:0:2::/125")},
}

const podsPerPrefix = 5 // a /29 without network, gateway and broadcast

// natPools say what leaves masqueraded and what does not. They are disabled, so
// that they give out no address: Kubernetes does.
const natPools = `apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: node-prefixes-v4}
spec: {cidr: 10.60.0.0/16, natOutgoing: true, disabled: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: node-prefixes-v6}
spec: {cidr: "fd00:60::/48", natOutgoing: true, disabled: true}
`

// hostLocalConf is a configuration in Calico's spelling.
const hostLocalConf = `{"cniVersion": "1.0.0", "name": "k8s-pod-network", "plugins": [{"type": "muslin", "ipam": {
  "type": "host-local", "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]]}}]}
`

// TestPodCIDRs: real kubelets, nodes with prefixes from Kubernetes, and no block:
// pods get addresses of their node's prefixes, the routers learn the prefixes,
// an agent's death changes nothing, and a pod's end frees what it had.
func TestPodCIDRs(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	ctx, cancel := context.WithTimeout(t.Context(), Timeout)
	defer cancel()
	source, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	c := startPodCIDRs(t, ctx, source)
	s := story{Cluster: c}
	if _, err := c.Deploy(ctx, 4); err != nil {
		t.Fatal(err)
	}
	pods := s.addressedFromNodes(t, ctx, 4)
	s.noBlocks(t, ctx)
	s.prefixesAreRouted(t, ctx)
	s.bothFamiliesReach(t, ctx, pods)
	t.Run("agent killed", func(t *testing.T) { s.killKeepsAddresses(t, ctx) })
	t.Run("full and free again", func(t *testing.T) { s.fullAndFreeAgain(t, ctx) })
	s.noBlocks(t, ctx)
}

// startPodCIDRs brings the lab up with Muslin on it, told to leave the CNI
// configuration to us.
func startPodCIDRs(t *testing.T, ctx context.Context, source string) *Cluster {
	t.Helper()
	dir := t.TempDir()
	muslin, err := build(ctx, source)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := topology.Read("testdata/pod-cidrs.yaml")
	if err != nil {
		t.Fatal(err)
	}
	options := lab.Options{Name: "podcidr", Source: source, Progress: os.Stdout}
	clean := func() {
		if err := lab.Down(context.WithoutCancel(ctx), options); err != nil {
			t.Errorf("lab down: %v", err)
		}
	}
	clean()
	t.Cleanup(clean)
	c := &Cluster{Source: source, Out: os.Stdout}
	if c.Lab, err = lab.New(plan, options); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Up(ctx); err != nil {
		t.Fatal(err)
	}
	if err := c.Kube.Load(ctx, muslin.archive); err != nil {
		t.Fatal(err)
	}
	s := story{Cluster: c}
	s.kubectlOK(t, ctx, "", "apply", "-k", filepath.Join(source, "manifests/crds"))
	s.kubectlOK(t, ctx, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	s.kubectlOK(t, ctx, natPools+"---\n"+c.routerPeers(), "apply", "-f", "-")
	for node, prefixes := range podCIDRs {
		s.kubectlOK(t, ctx, "", "patch", "node", node, "--type=merge", "-p",
			fmt.Sprintf(`{"spec":{"podCIDR":%q,"podCIDRs":[%q,%q]}}`, prefixes[0], prefixes[0], prefixes[1]))
		if _, err := c.Machine(node).Exec(ctx, "sh", "-c", "mkdir -p /etc/cni/net.d && printf '%s' '"+hostLocalConf+"' > /etc/cni/net.d/10-pods.conflist"); err != nil {
			t.Fatal(err)
		}
	}
	s.kubectlOK(t, ctx, "", "apply", "-k", withoutCNIConf(t, dir, source))
	if err := c.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return c
}

// withoutCNIConf is a kustomization over the manifests.
func withoutCNIConf(t *testing.T, dir, source string) string {
	t.Helper()
	base, err := filepath.Rel(dir, filepath.Join(source, "manifests"))
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf(`resources: [%s]
patches:
- target: {kind: DaemonSet, name: muslin-agent}
  patch: |
    - {op: add, path: /spec/template/spec/containers/0/env/-, value: {name: MUSLIN_CNI_CONF, value: none}}
    - {op: add, path: /spec/template/spec/initContainers/0/env/-, value: {name: MUSLIN_CNI_CONF, value: none}}
`, base)
	if err := os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s story) kubectlOK(t *testing.T, ctx context.Context, stdin string, args ...string) string {
	t.Helper()
	out, err := s.Kubectl(ctx, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// dualPod is a pod with its addresses, IPv4 first.
type dualPod struct {
	Pod
	six netip.Addr
}

// addressedFromNodes waits until n pods run, and checks that each has an address
// of each of its node's prefixes, and nobody else has it.
func (s story) addressedFromNodes(t *testing.T, ctx context.Context, n int) []dualPod {
	t.Helper()
	var pods []dualPod
	if err := s.eventually(ctx, 2*time.Minute, func() error {
		running, err := s.Pods(ctx)
		if err != nil || len(running) != n {
			return fmt.Errorf("%d pods run, want %d: %w", len(running), n, err)
		}
		pods = pods[:0]
		for _, p := range running {
			out, err := s.Kubectl(ctx, "", "get", "pod", p.Name, "-o", "jsonpath={.status.podIPs[*].ip}")
			if err != nil {
				return err
			}
			ips := strings.Fields(string(out))
			if len(ips) != 2 {
				return fmt.Errorf("pod %s has the addresses %q, want two", p.Name, ips)
			}
			pods = append(pods, dualPod{p, netip.MustParseAddr(ips[1])})
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	seen := map[netip.Addr]string{}
	for _, p := range pods {
		for i, a := range []netip.Addr{p.IP, p.six} {
			if !podCIDRs[p.Node][i].Contains(a) {
				t.Errorf("pod %s on %s has %s, outside %s", p.Name, p.Node, a, podCIDRs[p.Node][i])
			}
			if seen[a] != "" {
				t.Errorf("%s belongs to %s and to %s", a, seen[a], p.Name)
			}
			seen[a] = p.Name
		}
	}
	return pods
}

// noBlocks: nothing of IPAM is stored.
func (s story) noBlocks(t *testing.T, ctx context.Context) {
	t.Helper()
	if out := s.kubectlOK(t, ctx, "", "get", "ipamblocks.projectcalico.org,ipamhandles.projectcalico.org,blockaffinities.projectcalico.org", "-o", "name"); out != "" {
		t.Errorf("IPAM stores\n%s", out)
	}
}

// prefixesAreRouted: each node and each router has the prefixes of the nodes
// that are not its own, as they are.
func (s story) prefixesAreRouted(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, machine := range []string{"n1", "n2", "tor1", "tor2"} {
		if err := s.eventually(ctx, time.Minute, func() error {
			routes, err := s.Fabric.Routes(machine)
			if err != nil {
				return err
			}
			have := map[netip.Prefix]bool{}
			for _, r := range routes {
				have[r.To] = r.Via.IsValid() || have[r.To]
			}
			for node, prefixes := range podCIDRs {
				for _, p := range prefixes {
					if node != machine && !have[p] {
						return fmt.Errorf("%s has no route to %s of %s", machine, p, node)
					}
				}
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

// bothFamiliesReach: pods in different racks reach each other from their own
// addresses, and what is outside by their node's.
func (s story) bothFamiliesReach(t *testing.T, ctx context.Context, pods []dualPod) {
	t.Helper()
	outside := s.Topology().Outside
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.serve(ctx, []string{outside.Name}); err != nil {
		t.Fatal(err)
	}
	reach := func(from dualPod, to, want netip.Addr) {
		if err := s.eventually(ctx, time.Minute, func() error {
			got, err := s.dialFromPod(ctx, from.Pod, to)
			if err == nil && got != want {
				err = fmt.Errorf("it came from %s, want %s", got, want)
			}
			return err
		}); err != nil {
			t.Errorf("%s to %s: %v", from.Name, to, err)
		}
	}
	for _, p := range pods {
		for _, q := range pods {
			if p.Name != q.Name {
				reach(p, q.IP, p.IP)
				reach(p, q.six, p.six)
			}
		}
		reach(p, outside.Address.V4, s.nodeAddr(p.Node))
	}
}

// killKeepsAddresses: a new agent knows what pods have from the pods themselves.
func (s story) killKeepsAddresses(t *testing.T, ctx context.Context) {
	before := s.addressedFromNodes(t, ctx, 4)
	from, to := before[0], before[3]
	ping := s.startPing(t, ctx, from.Pod, to.Pod)
	pid := s.agentPID(t, ctx, from.Node)
	if _, err := s.Machine(from.Node).Exec(ctx, "kill", "-9", pid); err != nil {
		t.Fatal(err)
	}
	if err := s.eventually(ctx, 2*time.Minute, func() error {
		now, err := s.findAgent(ctx, from.Node)
		if err != nil || now == pid {
			return fmt.Errorf("agent not back: %s: %w", now, err)
		}
		status, err := s.Agent(ctx, from.Node)
		if err == nil && len(status.Waiting) > 0 {
			err = fmt.Errorf("agent waits for %q", status.Waiting)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// Two more pods: they get other addresses than those that live.
	if _, err := s.Deploy(ctx, 6); err != nil {
		t.Fatal(err)
	}
	after := map[string]dualPod{}
	for _, p := range s.addressedFromNodes(t, ctx, 6) {
		after[p.Name] = p
	}
	for _, p := range before {
		if a := after[p.Name]; a.Node != p.Node || a.IP != p.IP || a.six != p.six {
			t.Errorf("%+v became %+v", p, after[p.Name])
		}
	}
	s.prefixesAreRouted(t, ctx)
	if r := ping(); r.Lost != 0 || r.Failed != 0 || r.Sent == 0 {
		t.Errorf("ping: %+v, want none lost", r)
	}
}

// fullAndFreeAgain: the pod that is one too many is told why; when others end,
// their addresses are had again.
func (s story) fullAndFreeAgain(t *testing.T, ctx context.Context) {
	full := len(podCIDRs) * podsPerPrefix
	if _, err := s.Deploy(ctx, full); err != nil {
		t.Fatal(err)
	}
	s.addressedFromNodes(t, ctx, full)
	s.kubectlOK(t, ctx, "", "scale", "deployment/echo", fmt.Sprintf("--replicas=%d", full+1))
	if err := s.eventually(ctx, 2*time.Minute, func() error {
		out, err := s.Kubectl(ctx, "", "get", "events", "--field-selector", "reason=FailedCreatePodSandBox", "-o", "json")
		if err != nil {
			return err
		}
		var events struct{ Items []struct{ Message string } }
		if err := json.Unmarshal(out, &events); err != nil {
			return err
		}
		for _, e := range events.Items {
			if strings.Contains(e.Message, "spec.podCIDRs") && strings.Contains(e.Message, "is in use") {
				return nil
			}
		}
		return fmt.Errorf("no event says what is full: %+v", events.Items)
	}); err != nil {
		t.Error(err)
	}
	if _, err := s.Deploy(ctx, 2); err != nil {
		t.Fatal(err)
	}
	s.addressedFromNodes(t, ctx, 2)
	if _, err := s.Deploy(ctx, full); err != nil {
		t.Fatal(err)
	}
	s.addressedFromNodes(t, ctx, full)
}
