package manifests_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
)

// The agent and the controller, with the tokens of their pods, are refused nothing
// that they ask a server for, and each right that the manifests grant is one that
// they use: without it a request of this test is refused, and it names the right.
func TestEachRightIsUsed(t *testing.T) {
	t.Parallel()
	// A server of old that does not stream lists has them listed.
	s, requested := kubetest.StartAudited(t, "--feature-gates=WatchList=false")
	s.Install(t)
	s.MustKubectl(t, "", "apply", "-f", kubetest.Root()+"/pkg/kube/testdata/clusternetworkpolicies.yaml")
	s.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	s.MustKubectl(t, nodes, "apply", "-f", "-")
	stop := control(t, s)
	until(t, "a default pool", func() bool {
		_, err := s.Kubectl("", "get", "ippool", "default-ipv4-ippool")
		return err == nil
	})
	s.MustKubectl(t, cluster, "apply", "-f", "-")
	leave(t, s)
	for _, name := range []string{"tor", "later"} {
		s.MustKubectl(t, "", "patch", "bgppeer", "tor", "--type=merge", "-p", `{"spec":{"password":{"secretKeyRef":{"name":"`+name+`","key":"password"}}}}`)
		until(t, "agents may read Secret "+name, func() bool {
			return strings.Contains(s.MustKubectl(t, "", "-n", "muslin-system", "get", "role", "muslin-passwords", "--ignore-not-found", "-o", "jsonpath={.rules}"), name)
		})
	}
	agentWork(t, s, "n1")
	controllerWorks(t, s)
	stop()
	for name, want := range map[string]string{"later": "yes", "tor": "no"} {
		out, _ := s.Kubectl("", "auth", "can-i", "get", "secrets/"+name, "-n", "muslin-system", "--as=system:serviceaccount:muslin-system:muslin-agent")
		if got := strings.TrimSpace(out); got != want {
			t.Errorf("an agent may read Secret %s: %s, want %s", name, got, want)
		}
	}
	for _, name := range []string{"muslin-agent", "muslin-controller"} {
		t.Run(name, func(t *testing.T) {
			requests := requested("system:serviceaccount:muslin-system:" + name)
			for _, r := range requests {
				if !r.Allowed {
					t.Errorf("refused: %s %s", r.Verb, r.URI)
				}
			}
			for _, right := range rightsOf(t, s, name) {
				t.Run(strings.ReplaceAll(right.String(), "/", " of "), func(t *testing.T) {
					if !slices.ContainsFunc(requests, right.covers) {
						t.Error("granted, and nobody asks for it")
					}
				})
			}
		})
	}
}

// right is one verb on one resource that an account has.
type right struct{ namespace, group, resource, name, verb string }

func (r right) String() string {
	text := r.verb + " " + r.resource
	for _, part := range []struct{ word, is string }{{" named ", r.name}, {" in ", r.namespace}} {
		if part.is != "" {
			text += part.word + part.is
		}
	}
	return text
}

func (r right) covers(q kubetest.Request) bool {
	resource, sub, _ := strings.Cut(r.resource, "/")
	return q.Allowed && q.Verb == r.verb && q.Group == r.group && q.Resource == resource && q.Sub == sub &&
		(r.namespace == "" || r.namespace == q.Namespace) && (r.name == "" || r.name == q.Name || strings.Contains(q.URI, "metadata.name%3D"+r.name))
}

// rightsOf lists what bindings give an account, as the server has it.
func rightsOf(t *testing.T, s *kubetest.Server, account string) (out []right) {
	t.Helper()
	var bindings rbac.RoleBindingList
	read(t, s, &bindings, "get", "rolebindings,clusterrolebindings", "-A")
	for _, b := range bindings.Items {
		if !slices.ContainsFunc(b.Subjects, func(s rbac.Subject) bool { return s.Name == account && s.Namespace == "muslin-system" }) {
			continue
		}
		var role rbac.Role
		args := []string{"get", strings.ToLower(b.RoleRef.Kind), b.RoleRef.Name}
		if b.RoleRef.Kind == "Role" {
			args = append(args, "-n", b.Namespace)
		}
		read(t, s, &role, args...)
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, name := range append(rule.ResourceNames, "")[:max(1, len(rule.ResourceNames))] {
						for _, verb := range rule.Verbs {
							out = append(out, right{b.Namespace, group, resource, name, verb})
						}
					}
				}
			}
		}
	}
	if len(out) == 0 {
		t.Fatalf("%s has no rights", account)
	}
	return out
}

func read(t *testing.T, s *kubetest.Server, into any, args ...string) {
	t.Helper()
	if err := json.Unmarshal([]byte(s.MustKubectl(t, "", append(args, "-o", "json")...)), into); err != nil {
		t.Fatal(err)
	}
}

// nodes are two, and what the controller is to make at its start.
const nodes = `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}, annotations: {other.example/x: kept}}}
- {apiVersion: v1, kind: Node, metadata: {name: n2, labels: {zone: a}, annotations: {other.example/x: kept}}}
- apiVersion: v1
  kind: ConfigMap
  metadata: {name: muslin-seed, namespace: muslin-system}
  data:
    all.yaml: |
      {apiVersion: projectcalico.org/v3, kind: BGPFilter, metadata: {name: all}, spec: {exportV4: [{action: Accept}]}}
      ---
      {apiVersion: projectcalico.org/v3, kind: BGPPeer, metadata: {name: tor}, spec: {peerIP: 192.0.2.1, asNumber: 65000}}
      ---
      {apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {}}
      ---
      {apiVersion: projectcalico.org/v3, kind: IPReservation, metadata: {name: one}, spec: {reservedCIDRs: [10.7.0.0]}}
`

// cluster has something of everything that is watched on demand.
const cluster = `
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Secret, metadata: {name: later, namespace: muslin-system}, stringData: {password: open}}
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: small}
  spec: {cidr: 10.7.0.0/28, blockSize: 29}
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: gone}
  spec: {cidr: 10.9.0.0/28, blockSize: 29}
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: vacant}
  spec: {cidr: 10.8.0.0/28, blockSize: 29}
- apiVersion: projectcalico.org/v3
  kind: IPPool
  metadata: {name: services}
  spec: {cidr: 10.5.0.0/29, blockSize: 29, allowedUses: [LoadBalancer], assignmentMode: Automatic}
- {apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}]}}
- apiVersion: projectcalico.org/v3
  kind: BGPConfiguration
  metadata: {name: default}
  spec: {asNumber: 64512, serviceClusterIPs: [{cidr: 10.96.0.0/16}]}
- apiVersion: projectcalico.org/v3
  kind: BGPPeer
  metadata: {name: tor}
  spec: {peerIP: 192.0.2.1, asNumber: 65000, password: {secretKeyRef: {name: tor, key: password}}}
- apiVersion: projectcalico.org/v3
  kind: CalicoNodeStatus
  metadata: {name: of-n1}
  spec: {node: n1, classes: [Agent], updatePeriodSeconds: 10}
- apiVersion: projectcalico.org/v3
  kind: CalicoNodeStatus
  metadata: {name: of-n2}
  spec: {node: n2, classes: [Agent], updatePeriodSeconds: 10}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkPolicy
  metadata: {name: accounts}
  spec: {serviceAccountSelector: trust == "high"}
- apiVersion: projectcalico.org/v3
  kind: NetworkPolicy
  metadata: {name: some, namespace: default}
  spec: {selector: all(), egress: [{action: Allow, destination: {services: {name: kubernetes, namespace: default}}}]}
- apiVersion: projectcalico.org/v3
  kind: NetworkSet
  metadata: {name: some, namespace: default}
  spec: {nets: [192.0.2.0/24]}
- apiVersion: projectcalico.org/v3
  kind: StagedNetworkPolicy
  metadata: {name: staged, namespace: default}
  spec: {types: [Ingress]}
- apiVersion: projectcalico.org/v3
  kind: StagedGlobalNetworkPolicy
  metadata: {name: staged}
  spec: {types: [Ingress]}
- apiVersion: projectcalico.org/v3
  kind: StagedKubernetesNetworkPolicy
  metadata: {name: staged, namespace: default}
  spec: {podSelector: {}}
- apiVersion: projectcalico.org/v3
  kind: GlobalNetworkSet
  metadata: {name: some}
  spec: {nets: [192.0.2.0/24]}
- apiVersion: projectcalico.org/v3
  kind: HostEndpoint
  metadata: {name: some}
  spec: {node: n9, interfaceName: eth0}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: some, namespace: default}
  spec: {podSelector: {}, ingress: [{ports: [{protocol: SCTP, port: nowhere}]}]}
- apiVersion: policy.networking.k8s.io/v1beta1
  kind: ClusterNetworkPolicy
  metadata: {name: some}
  spec: {tier: Admin, priority: 0, subject: {namespaces: {}}}
`

func discard() *slog.Logger {
	if testing.Verbose() {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}

// begin runs something until the test ends.
func begin(t *testing.T, run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	return stop
}

func ready(t *testing.T, what string, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(3 * time.Minute):
		t.Fatalf("%s is not ready after three minutes", what)
	}
}

// openStore gives IPAM's objects with somebody's rights.
func openStore(t *testing.T, cfg *rest.Config, node model.NodeName) *kubestore.Store {
	t.Helper()
	store, err := kubestore.New(cfg, kubestore.Options{Logger: discard(), Node: node})
	if err != nil {
		t.Fatal(err)
	}
	return store
}

// allocator runs that of a node on a pool of two blocks.
func allocator(t *testing.T, cfg *rest.Config, node model.NodeName, pool string) (a *alloc.Allocator, stop func()) {
	t.Helper()
	a = alloc.New(node, openStore(t, cfg, node))
	a.SetPools([]model.Pool{{Name: pool, CIDR: netip.MustParsePrefix(pool), BlockSize: 29, Allocatable: true}})
	stop = begin(t, a.Run)
	ready(t, "the allocator of "+string(node), a.Ready())
	return a, stop
}

func request(handle string, v4 int) alloc.Request {
	return alloc.Request{Handle: "k8s-pod-network." + handle, V4: v4, Attrs: map[string]string{"namespace": "default", "pod": handle}}
}

// leave has what a controller finds to do: blocks of node n3, which is no more,
// with addresses of a pod in two of them, and a block of n2's that was claimed long
// ago and is empty; and for an agent an address in a block that is nobody's, and a
// claim that was never finished.
func leave(t *testing.T, s *kubetest.Server) {
	t.Helper()
	gone, stop := allocator(t, s.Config(), "n3", "10.9.0.0/28")
	for _, n := range []int{8, 9} { // the ninth in a block more
		if _, err := gone.Assign(t.Context(), request("gone", n)); err != nil {
			t.Fatal(err)
		}
	}
	stop()
	store := openStore(t, s.Config(), "")
	block := func(cidr, affinity string) *ipam.Block {
		b, err := ipam.NewBlock(netip.MustParsePrefix(cidr), affinity, time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	nobodys := block("10.6.0.0/29", "")
	nobodys.Assign(1, ipam.Attribute{Handle: "k8s-pod-network.old", Owner: map[string]string{"node": "n1", "namespace": "default", "pod": "old"}}, nil)
	for _, b := range []*ipam.Block{nobodys, block("10.8.0.8/29", "host:n2")} {
		if _, err := store.Blocks().Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	for _, a := range []ipam.Affinity{
		{Node: "n2", CIDR: netip.MustParsePrefix("10.8.0.8/29"), State: model.BlockConfirmed, Type: "host"},
		{Node: "n1", CIDR: netip.MustParsePrefix("10.7.0.8/29"), State: model.BlockPending, Type: "host"},
	} {
		if _, err := store.Affinities().Create(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Handles().Create(t.Context(), ipam.Handle{ID: "k8s-pod-network.old", Blocks: map[netip.Prefix]int{nobodys.CIDR(): 1}}); err != nil {
		t.Fatal(err)
	}
}

// agentWork does what the agent of n1 asks the API for, with the token of its pod,
// and fails the test where something is refused: reads, the node's conditions and
// annotations, events, its CalicoNodeStatus, and IPAM.
func agentWork(t *testing.T, s *kubetest.Server, node model.NodeName) {
	t.Helper()
	cfg := s.ConfigOfPod(t, "muslin-system", "muslin-agent", string(node))
	c, err := kube.New(cfg, kube.Options{Node: node, AllBlocksWhile: func(model.Snapshot) bool { return true }, Policy: true, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	stop := begin(t, c.Run)
	ready(t, "the cluster of an agent", c.Ready())
	until(t, "the password and all policies", func() bool {
		peers := c.Snapshot().Peers
		return len(peers) == 1 && peers[0].Password.Known && len(c.PolicyWaiting()) == 0 && c.AllBlocks().Listed
	})
	tell(t, c)
	_, err = c.Pod(t.Context(), "muslin-system", "none", "")
	if err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("get a pod: %v", err)
	}
	if _, err = c.NamespaceOf(t.Context(), "none"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("get a namespace: %v", err)
	}
	assignAll(t, s, cfg, node)
	stop()
}

// tell writes all that an agent says of its node.
func tell(t *testing.T, c *kube.Cluster) {
	t.Helper()
	ctx := t.Context()
	annotations := map[string]string{
		kube.AnnotationIPIPTunnel: "10.7.0.1", kube.AnnotationVXLANTunnel: "10.7.0.2", kube.AnnotationVXLANTunnelV6: "fd00::1", "muslin.io/drain-state": "withdrawn",
		nodeaddr.IPv4.Address: "192.0.2.11/24", nodeaddr.IPv6.Address: "2001:db8::11/64", nodeaddr.IPv4.Mark: "first-found 192.0.2.11/24", nodeaddr.IPv6.Mark: "first-found 2001:db8::11/64",
	}
	none := map[string]string{}
	for k := range annotations {
		none[k] = ""
	}
	_, err := c.AnnotationWriter(ctx, nodeaddr.IPv4.Address)
	for what, err := range map[string]error{
		"who annotated":        err,
		"NetworkUnavailable":   c.SetNetworkUnavailable(ctx, false, "MuslinIsUp", "up"),
		"ReflectorPressure":    c.SetReflectorPressure(ctx, true, "Many", "many"),
		"MuslinProblem":        c.SetNodeProblem(ctx, true, "Some", "some"),
		"annotate":             c.AnnotateNode(ctx, annotations),
		"take annotations off": c.AnnotateNode(ctx, none),
		"event":                c.Record(ctx, kube.Event{Object: model.Ref{Kind: "Node", Name: "n1"}, UID: "n1", Type: kube.EventWarning, Reason: "Test", Message: "test"}),
		"CalicoNodeStatus":     c.WriteNodeStatus(ctx, "of-n1", kube.NodeStatus{Agent: &kube.DaemonStatus{}}),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// assignAll claims blocks, borrows of another node's, gives everything back, takes
// an empty block of another node, and puts right what was left half done.
func assignAll(t *testing.T, s *kubetest.Server, cfg *rest.Config, node model.NodeName) {
	t.Helper()
	assign := func(a *alloc.Allocator, handle string, n int) {
		t.Helper()
		if _, err := a.Assign(t.Context(), request(handle, n)); err != nil {
			t.Fatalf("assign to %s: %v", handle, err)
		}
	}
	release := func(a *alloc.Allocator, handle string) {
		t.Helper()
		if err := a.Release(t.Context(), request(handle, 0).Handle); err != nil {
			t.Errorf("release %s: %v", handle, err)
		}
	}
	a, stop := allocator(t, cfg, node, "10.7.0.0/28")
	until(t, "the stale claim is gone", func() bool {
		_, err := s.Kubectl("", "get", "blockaffinity", "n1-10-7-0-8-29")
		return err != nil
	})
	assign(a, "one", 1)
	assign(a, "one", 2)
	other, _ := allocator(t, s.ConfigOfPod(t, "muslin-system", "muslin-agent", "n2"), "n2", "10.7.0.0/28")
	assign(other, "theirs", 1)
	for _, pod := range []string{"two", "three"} {
		assign(a, pod, 4) // eight of ten are its own
	}
	if n := len(a.Borrowed()); n != 2 {
		t.Errorf("%d borrowed", n)
	}
	for _, pod := range []string{"one", "two", "three", "old"} {
		release(a, pod)
	}
	if out, err := s.Kubectl("", "get", "ipamblock", "10-6-0-0-29"); err == nil {
		t.Errorf("the empty block that is nobody's is left: %s", out)
	}
	stop() // two of one node would undo each other's claims
	taker, _ := allocator(t, cfg, node, "10.8.0.0/28")
	assign(taker, "many", 8)
	assign(taker, "more", 1)
	if n := len(taker.Blocks()); n != 2+1 { // and the one of the other pool
		t.Errorf("%d blocks: %v", n, taker.Blocks())
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after three minutes: %s", what)
		}
	}
}

// control runs the controller with the token of its pod.
func control(t *testing.T, s *kubetest.Server) (stop func()) {
	t.Helper()
	cfg := s.ConfigOfPod(t, "muslin-system", "muslin-controller", "n1")
	c, err := kube.New(cfg, kube.Options{Component: "muslin-controller", Blocks: kube.AllBlocks, Policy: true, Balanced: true, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := app.NewObjects(cfg, discard())
	if err != nil {
		t.Fatal(err)
	}
	ctl := &app.Controller{
		Cluster: c, Store: openStore(t, cfg, ""), Objects: objects, Logger: discard(), Settle: time.Second,
		Defaults: app.Defaults{IPv4Pool: netip.MustParsePrefix("10.244.0.0/16")},
	}
	stopCluster := begin(t, c.Run)
	stopWork := begin(t, func(ctx context.Context) error {
		return app.Election{Config: cfg, Namespace: kube.SystemNamespace, Identity: "one", Logger: discard()}.Elect(ctx, ctl.Run)
	})
	return func() { stopWork(); stopCluster() }
}

// controllerWorks waits until the controller has done what there is to do.
func controllerWorks(t *testing.T, s *kubetest.Server) {
	t.Helper()
	for _, kind := range []string{"ippool", "bgpconfiguration", "bgppeer", "bgpfilter", "felixconfiguration", "networkpolicies.projectcalico.org", "globalnetworkpolicy", "tier", "networkset", "globalnetworkset", "clusternetworkpolicy"} {
		until(t, "conditions of "+kind, func() bool {
			out, _ := s.Kubectl("", "get", kind, "-A", "-o", "jsonpath={.items[0].status.conditions[*].type}")
			return out != ""
		})
	}
	until(t, "an address of Service web", func() bool {
		return strings.HasPrefix(s.MustKubectl(t, "", "get", "service", "web", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}"), "10.5.0.")
	})
	for _, auto := range []string{"Enabled", "Disabled"} {
		s.MustKubectl(t, "", "patch", "kubecontrollersconfiguration", "default", "--type=merge", "-p", `{"spec":{"controllers":{"node":{"hostEndpoint":{"autoCreate":"`+auto+`"}}}}}`)
		for _, zone := range []string{"b", "c"} { // one that is made, and one that is changed
			s.MustKubectl(t, "", "label", "node", "n2", "--overwrite", "zone="+zone)
			until(t, "the host endpoint of n2 with autoCreate "+auto, func() bool {
				out := s.MustKubectl(t, "", "get", "hostendpoint", "n2-auto-hep", "--ignore-not-found", "-o", "jsonpath={.metadata.labels.zone}")
				return auto == "Enabled" && out == zone || auto == "Disabled" && out == ""
			})
		}
	}
	until(t, "nothing is left of n3", func() bool {
		out := s.MustKubectl(t, "", "get", "blockaffinities,ipamhandles", "-o", "name")
		return !strings.Contains(out, "/n3-") && !strings.Contains(out, "gone")
	})
}
