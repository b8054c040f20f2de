package kube_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *kubetest.Server) { server = s }))
}

const agentUser = "system:serviceaccount:muslin-system:muslin-agent"

// watch runs a Cluster with the rights of the agent until the test ends.
func watch(t *testing.T, o kube.Options) *kube.Cluster {
	t.Helper()
	server.Install(t)
	cfg := server.ConfigAs(agentUser)
	cfg.Impersonate.Extra = map[string][]string{"authentication.kubernetes.io/node-name": {string(o.Node)}}
	return watchAs(t, cfg, o)
}

func watchAs(t *testing.T, cfg *rest.Config, o kube.Options) *kube.Cluster {
	t.Helper()
	o.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := kube.New(cfg, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-c.Ready():
	case <-time.After(3 * time.Minute):
		t.Fatalf("not synced after three minutes; waiting for %v", c.Waiting())
	}
	return c
}

// eventually waits until f gives "" and fails with what it gave last.
func eventually(t *testing.T, c *kube.Cluster, f func() string) {
	t.Helper()
	for end := time.After(2 * time.Minute); ; {
		last := f()
		if last == "" {
			return
		}
		select {
		case <-c.Changed():
		case <-time.After(50 * time.Millisecond): // what is not part of the snapshot gives no hint
		case <-end:
			t.Fatal(last)
		}
	}
}

func apply(t *testing.T, yaml string) {
	t.Helper()
	server.MustKubectl(t, yaml, "apply", "--server-side", "-f", "-")
	t.Cleanup(func() { server.Kubectl(yaml, "delete", "--ignore-not-found", "--grace-period=0", "--force", "-f", "-") })
}

func v3(kind, name, spec string) string {
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s}\nspec: %s\n---\n", kind, name, spec)
}

func node(name, annotations string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Node
metadata: {name: %s, labels: {rack: a}, annotations: {other.example/x: foreign%s}}
spec: {podCIDRs: [10.200.1.0/24], podCIDR: 10.200.1.0/24}
---
`, name, annotations)
}

func TestSnapshotFollowsTheServer(t *testing.T) {
	apply(t, node("n1", `, projectcalico.org/IPv4Address: 192.0.2.1/24, projectcalico.org/ASNumber: "1.10"`))
	apply(t, v3("IPPool", "pods", `{cidr: 10.244.0.0/16, natOutgoing: true}`))
	apply(t, v3("IPAMConfiguration", "default", `{maxBlocksPerHost: 3, ipCooldownSeconds: 9}`)+v3("IPReservation", "r", `{reservedCIDRs: [10.244.9.9, 10.244.0.0/30]}`))
	c := watch(t, kube.Options{Node: "n1", Blocks: kube.OwnBlocks})
	s := c.Snapshot()
	if want := (model.IPAM{AutoAllocateBlocks: true, MaxBlocksPerHost: 3, CooldownSeconds: 9}); s.IPAM != want {
		t.Errorf("IPAM: %+v", s.IPAM)
	}
	apply(t, v3("ClusterInformation", "default", `{datastoreReady: false}`))
	eventually(t, c, func() string {
		if got := c.Snapshot().IPAM; !got.Locked || got.MaxBlocksPerHost != 3 {
			return fmt.Sprintf("%+v", got)
		}
		return ""
	})
	apply(t, v3("ClusterInformation", "default", `{datastoreReady: true}`))
	eventually(t, c, func() string { return strings.TrimPrefix(fmt.Sprint(c.Snapshot().IPAM.Locked), "false") })
	if got := fmt.Sprint(s.Reserved); got != "[10.244.0.0/30 10.244.9.9/32]" {
		t.Errorf("reserved: %s", got)
	}
	if !s.Synced {
		t.Fatal("ready, and the snapshot is not synced")
	}
	want := model.Node{
		Name: "n1", Labels: map[string]string{"rack": "a"}, IPv4: netip.MustParsePrefix("192.0.2.1/24"), ASN: 65546,
		Annotations: map[string]string{"projectcalico.org/IPv4Address": "192.0.2.1/24", "projectcalico.org/ASNumber": "1.10"},
		PodCIDRs:    []netip.Prefix{netip.MustParsePrefix("10.200.1.0/24")},
	}
	if d := cmp.Diff([]model.Node{want}, s.Nodes, comparers); d != "" {
		t.Errorf("nodes (-want +got):\n%s", d)
	}
	if len(s.Pools) != 1 || s.Pools[0].BlockSize != 26 || !s.Pools[0].Allocatable || !s.Pools[0].NATOutgoing {
		t.Errorf("pools: %+v", s.Pools)
	}
	if _, ok := s.Namespaces["muslin-system"]; !ok {
		t.Errorf("namespaces: %v", s.Namespaces)
	}

	apply(t, v3("BGPPeer", "tor", `{peerIP: "192.0.2.254:1179", asNumber: 64513, nodeSelector: "rack == 'a'", filters: [f]}`)+
		v3("BGPFilter", "f", `{exportV4: [{cidr: 10.0.0.0/8, matchOperator: In, action: Accept}, {action: Reject}]}`)+
		v3("BGPConfiguration", "default", `{asNumber: 64999, nodeToNodeMeshEnabled: false}`)+
		v3("FelixConfiguration", "default", `{vxlanMTU: 1400, bpfEnabled: true}`)+
		v3("BlockAffinity", "n1-10-244-1-0-26", `{state: confirmed, node: n1, cidr: 10.244.1.0/26, type: host}`)+
		v3("BlockAffinity", "n2-10-244-2-0-26", `{state: confirmed, node: n2, cidr: 10.244.2.0/26, type: host}`))
	eventually(t, c, func() string {
		s := c.Snapshot()
		if len(s.Peers) != 1 || len(s.Filters) != 1 || len(s.BGP) != 1 || len(s.Felix) != 1 || len(s.Blocks) != 1 {
			return fmt.Sprintf("not all there: %+v", s)
		}
		return ""
	})
	s = c.Snapshot()
	p := s.Peers[0]
	if p.PeerIP != netip.MustParseAddr("192.0.2.254") || p.PeerPort != 1179 || p.ASN != 64513 ||
		!p.NodeSelector.Matches(map[string]string{"rack": "a"}) || p.NodeSelector.Matches(map[string]string{"rack": "b"}) {
		t.Errorf("peer: %+v", p)
	}
	if s.BGP[0].ASN != 64999 || s.BGP[0].MeshEnabled == nil || *s.BGP[0].MeshEnabled {
		t.Errorf("BGPConfiguration: %+v", s.BGP[0])
	}
	if s.Felix[0].VXLANMTU != 1400 {
		t.Errorf("FelixConfiguration: %+v", s.Felix[0])
	}
	if s.Blocks[0].Node != "n1" {
		t.Errorf("blocks: %+v: only this node's are watched", s.Blocks)
	}
	if p := c.Problems(); len(p) != 1 || p[0].Object.Kind != "FelixConfiguration" || p[0].Field != "spec.bpfEnabled" {
		t.Errorf("problems: %v", p)
	}
	if i := slices.IndexFunc(c.Reported(), func(r kube.Reported) bool { return r.Ref.Kind == "FelixConfiguration" }); i < 0 {
		t.Error("nobody can put a condition on the FelixConfiguration")
	}
	server.MustKubectl(t, "", "delete", "bgppeer", "tor")
	eventually(t, c, func() string {
		if n := len(c.Snapshot().Peers); n != 0 {
			return fmt.Sprintf("%d peers after the only one was deleted", n)
		}
		return ""
	})
}

// A status that the kubelet writes every few seconds must not wake the agent.
func TestIrrelevantChangesAreNotChanges(t *testing.T) {
	apply(t, node("n1", ""))
	c := watch(t, kube.Options{Node: "n1"})
	eventually(t, c, func() string {
		if len(c.Snapshot().Nodes) != 1 {
			return "no node"
		}
		return ""
	})
	for len(c.Changed()) > 0 {
		<-c.Changed()
	}
	server.MustKubectl(t, "", "patch", "node", "n1", "--subresource=status", "--type=strategic", "-p",
		`{"status":{"conditions":[{"type":"Ready","status":"True","reason":"KubeletReady"}],"images":[{"names":["a"],"sizeBytes":1}]}}`)
	// a relevant change follows: when it has arrived, the irrelevant one has too
	server.MustKubectl(t, "", "label", "namespace", "default", "--overwrite", "seen=yes")
	<-c.Changed()
	if c.Snapshot().Namespaces["default"]["seen"] != "yes" {
		t.Error("the node's status change was taken for a change")
	}
	server.MustKubectl(t, "", "label", "namespace", "default", "seen-")
}

// An object that cannot be read is a problem, its last good value stays in
// force, and the others go on.
func TestLastGoodValueStaysInForce(t *testing.T) {
	c := watch(t, kube.Options{Node: "n1"})
	apply(t, v3("BGPPeer", "bad-from-the-start", `{peerIP: 192.0.2.8, asNumber: 1, nodeSelector: "rack = 'a'"}`)+
		v3("BGPPeer", "goes-bad", `{peerIP: 192.0.2.9, asNumber: 1, nodeSelector: "rack == 'a'"}`)+
		v3("IPPool", "goes-bad", `{cidr: 10.30.0.0/16}`))
	eventually(t, c, func() string {
		if s := c.Snapshot(); len(s.Peers) != 1 || len(s.Pools) != 1 {
			return fmt.Sprintf("peers %+v pools %+v", s.Peers, s.Pools)
		}
		return ""
	})
	server.MustKubectl(t, "", "patch", "bgppeer", "goes-bad", "--type=merge", "-p", `{"spec":{"nodeSelector":"rack =="}}`)
	server.MustKubectl(t, "", "patch", "ippool", "goes-bad", "--type=merge", "-p", `{"spec":{"nodeSelector":"(("}}`)
	eventually(t, c, func() string {
		if n := len(c.Problems()); n != 3 {
			return fmt.Sprintf("want 3 problems: %v", c.Problems())
		}
		return ""
	})
	s := c.Snapshot()
	if len(s.Peers) != 1 || s.Peers[0].NodeSelector.String() != `rack == "a"` && s.Peers[0].NodeSelector.String() != "rack == 'a'" {
		t.Errorf("the last good value is not in force: %+v", s.Peers)
	}
	if len(s.Pools) != 1 || s.Pools[0].NodeSelector.Matches(nil) {
		t.Errorf("a pool with a bad selector stays and selects nothing: %+v", s.Pools)
	}
	for i, want := range []string{"BGPPeer bad-from-the-start: spec.nodeSelector", "BGPPeer goes-bad: spec.nodeSelector", "IPPool goes-bad: spec.nodeSelector"} {
		if got := c.Problems()[i].String(); !strings.HasPrefix(got, want) {
			t.Errorf("problem %d: %s, want it to begin with %s", i, got, want)
		}
	}
}

func TestPasswordComesAndChanges(t *testing.T) {
	server.Install(t)
	apply(t, v3("BGPPeer", "md5", `{peerIP: 192.0.2.9, asNumber: 1, password: {secretKeyRef: {name: bgp, key: tor}}}`))
	// As the controller makes it: no other Secret can be read.
	apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: muslin-passwords, namespace: muslin-system},
  rules: [{apiGroups: [""], resources: [secrets], resourceNames: [bgp], verbs: [get, list, watch]}]}`)
	c := watch(t, kube.Options{Node: "n1"}) // is ready although the Secret is absent
	password := func() *model.PasswordRef { return c.Snapshot().Peers[0].Password }
	if p := password(); p == nil || p.Known {
		t.Fatalf("password of an absent Secret: %+v", p)
	}
	for _, text := range []string{"first", "second"} {
		apply(t, fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: bgp, namespace: muslin-system}\nstringData: {tor: %s}\n", text))
		eventually(t, c, func() string {
			if p := password(); !p.Known || p.Value.Reveal() != text {
				return fmt.Sprintf("want %q: %v", text, p)
			}
			return ""
		})
	}
	server.MustKubectl(t, "", "-n", "muslin-system", "delete", "secret", "bgp")
	eventually(t, c, func() string {
		if password().Known {
			return "the Secret is gone and the password still known"
		}
		return ""
	})
}

func TestOverlappingPoolIsNotAllocatable(t *testing.T) {
	c := watch(t, kube.Options{Node: "n1"})
	apply(t, v3("IPPool", "b", `{cidr: 10.40.0.0/16}`))
	apply(t, v3("IPPool", "a", `{cidr: 10.40.1.0/24}`)) // later or, within the second, by name: see package validate
	eventually(t, c, func() string {
		s := c.Snapshot()
		if len(s.Pools) != 2 {
			return "not both there"
		}
		if s.Pools[0].Allocatable == s.Pools[1].Allocatable {
			return fmt.Sprintf("exactly one may be allocatable: %+v", s.Pools)
		}
		return ""
	})
}

func TestPodsAndNamespaces(t *testing.T) {
	apply(t, node("n1", "")+node("n2", ""))
	pod := func(name, node string) string {
		return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: default, labels: {app: a}, annotations: {cni.projectcalico.org/ipv4pools: '["p"]', other: x}}
spec: {nodeName: %s, containers: [{name: c, image: i}]}
---
`, name, node)
	}
	apply(t, pod("mine", "n1")+pod("theirs", "n2"))
	c := watch(t, kube.Options{Node: "n1"})
	if got := c.Pods(); len(got) != 1 || got[0].Name != "mine" {
		t.Errorf("cached pods: %+v", got)
	}
	for _, name := range []string{"mine", "theirs"} { // the second comes from the server
		p, err := c.Pod(t.Context(), "default", name, "")
		if err != nil {
			t.Fatal(err)
		}
		want := kube.Pod{Namespace: "default", Name: name, UID: p.UID, Node: p.Node, Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"cni.projectcalico.org/ipv4pools": `["p"]`}}
		if d := cmp.Diff(want, p); d != "" || p.UID == "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
	if _, err := c.Pod(t.Context(), "default", "none", ""); !apierrors.IsNotFound(err) {
		t.Errorf("absent pod: %v", err)
	}
	// A pod that was made again under its name is another one; a static pod's UID
	// is not that of its mirror.
	old, err := c.Pod(t.Context(), "default", "mine", "")
	if err != nil {
		t.Fatal(err)
	}
	server.MustKubectl(t, "", "delete", "pod", "mine", "--force", "--grace-period=0")
	apply(t, strings.Replace(pod("mine", "n1"), `"p"`, `"q"`, 1)+strings.Replace(pod("static", "n1"), "other: x", "kubernetes.io/config.mirror: x", 1))
	if _, err := c.Pod(t.Context(), "default", "mine", old.UID); !apierrors.IsNotFound(err) {
		t.Errorf("a pod whose name another has: %v", err)
	}
	uid := server.MustKubectl(t, "", "get", "pod", "mine", "-o", "jsonpath={.metadata.uid}")
	if p, err := c.Pod(t.Context(), "default", "mine", uid); err != nil || p.Annotations["cni.projectcalico.org/ipv4pools"] != `["q"]` {
		t.Errorf("the new pod: %+v %v", p, err)
	}
	if _, err := c.Pod(t.Context(), "default", "static", "hash"); err != nil {
		t.Errorf("static pod: %v", err)
	}
	if n, err := c.NamespaceOf(t.Context(), "muslin-system"); err != nil || n.Labels["app.kubernetes.io/name"] != "muslin" {
		t.Errorf("namespace: %+v %v", n, err)
	}
}

// The pressure on a route reflector is a condition of its node, which no other
// node has.
func TestReflectorPressure(t *testing.T) {
	apply(t, node("reflector", ""))
	c := watch(t, kube.Options{Node: "reflector"})
	set := func(pressed bool, reason, want string) {
		t.Helper()
		if err := c.SetReflectorPressure(t.Context(), pressed, reason, "for a reason"); err != nil {
			t.Fatal(err)
		}
		const path = `jsonpath={range .status.conditions[?(@.type=="RouteReflectorPressure")]}{.status} {.reason}: {.message}{end}`
		if got := server.MustKubectl(t, "", "get", "node", "reflector", "-o", path); got != want {
			t.Errorf("condition %q, want %q", got, want)
		}
	}
	set(false, "ReflectorWithinBounds", "")
	set(true, "ReflectorOverloaded", "True ReflectorOverloaded: for a reason")
	set(false, "ReflectorWithinBounds", "False ReflectorWithinBounds: for a reason")
}

func TestNodeStatus(t *testing.T) {
	apply(t, node("n1", ""))
	c := watch(t, kube.Options{Node: "n1"})
	version := func() string {
		return server.MustKubectl(t, "", "get", "node", "n1", "-o", "jsonpath={.metadata.resourceVersion}")
	}
	condition := func() string {
		return server.MustKubectl(t, "", "get", "node", "n1", "-o", `jsonpath={.status.conditions[?(@.type=="NetworkUnavailable")].status} {.status.conditions[?(@.type=="NetworkUnavailable")].reason} {.status.conditions[?(@.type=="NetworkUnavailable")].message}`)
	}
	set := func(v bool, reason, message string) {
		t.Helper()
		if err := c.SetNetworkUnavailable(t.Context(), v, reason, message); err != nil {
			t.Fatal(err)
		}
	}
	server.MustKubectl(t, "", "patch", "node", "n1", "--subresource=status", "--type=strategic", "-p", `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`)
	set(true, "Starting", "waiting for the data plane")
	set(false, "MuslinIsUp", "the agent has set up the node")
	if got := condition(); got != "False MuslinIsUp the agent has set up the node" {
		t.Errorf("condition: %q", got)
	}
	if ready := server.MustKubectl(t, "", "get", "node", "n1", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`); ready != "True" {
		t.Errorf("the kubelet's condition was touched: %q", ready)
	}
	before := version()
	set(false, "MuslinIsUp", "the agent has set up the node")
	annotate := func(v string) {
		t.Helper()
		if err := c.AnnotateNode(t.Context(), map[string]string{nodeaddr.IPv4.Address: v}); err != nil {
			t.Fatal(err)
		}
	}
	if version() != before {
		t.Error("a condition that was there already was written again")
	}
	annotate("192.0.2.7/24")
	eventually(t, c, func() string {
		if s := c.Snapshot(); len(s.Nodes) != 1 || s.Nodes[0].IPv4 != netip.MustParsePrefix("192.0.2.7/24") {
			return fmt.Sprintf("%+v", s.Nodes)
		}
		return ""
	})
	before = version()
	annotate("192.0.2.7/24")
	if version() != before {
		t.Error("an annotation that was there already was written again")
	}
	annotate("")
	if got := server.MustKubectl(t, "", "get", "node", "n1", "-o", "jsonpath={.metadata.annotations}"); strings.Contains(got, "IPv4Address") {
		t.Errorf("the annotation was not removed: %s", got)
	}
	if err := c.Record(t.Context(), kube.Event{Object: model.Ref{Kind: "BGPPeer", Name: "tor"}, Type: kube.EventWarning, Reason: "Rejected", Message: "m"}); err != nil {
		t.Error(err)
	}
	if got := server.MustKubectl(t, "", "get", "events", "-o", "jsonpath={.items[*].reason}"); !strings.Contains(got, "Rejected") {
		t.Errorf("events: %q", got)
	}
}

// The agent rides out an apiserver that goes and comes back, and sees what
// changed meanwhile.
func TestApiserverRestart(t *testing.T) {
	t.Parallel()
	own := kubetest.StartWithCRDs(t)
	c := watchAs(t, own.Config(), kube.Options{Node: "n1"})
	own.MustKubectl(t, v3("IPPool", "before", `{cidr: 10.50.0.0/16}`), "create", "-f", "-")
	own.Restart(t)
	if s := c.Snapshot(); !s.Synced {
		t.Error("a snapshot that was synced is not any more")
	}
	own.MustKubectl(t, v3("IPPool", "after", `{cidr: 10.51.0.0/16}`), "create", "-f", "-")
	eventually(t, c, func() string {
		if n := len(c.Snapshot().Pools); n != 2 {
			return fmt.Sprintf("%d pools", n)
		}
		return ""
	})
}

// CRDs that are installed after the agent has started are noticed.
func TestCRDsComeLate(t *testing.T) {
	t.Parallel()
	own := kubetest.Start(t)
	c, err := kube.New(own.Config(), kube.Options{Node: "n1", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	go c.Run(t.Context())
	eventually(t, c, func() string {
		if w := c.Waiting(); len(w) != 8 {
			return fmt.Sprintf("want the eight v3 kinds to be waited for: %v", w)
		}
		return ""
	})
	own.InstallCRDs(t)
	select {
	case <-c.Ready():
	case <-time.After(3 * time.Minute):
		t.Fatalf("still waiting for %v", c.Waiting())
	}
}

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// TestPoolsOfWhatOthersUse: the ranges of the server's own ServiceCIDRs and the
// subnets of nodes are no pool's.
func TestPoolsOfWhatOthersUse(t *testing.T) {
	apply(t, `{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [10.97.0.0/24]}}`)
	apply(t, node("n1", `, projectcalico.org/IPv4Address: 192.0.2.1/24`))
	apply(t, v3("IPPool", "services", `{cidr: 10.97.0.0/25}`)+v3("IPPool", "subnet", `{cidr: 192.0.0.0/16}`))
	c := watch(t, kube.Options{Node: "n1", Blocks: kube.OwnBlocks})
	eventually(t, c, func() string {
		var got []string
		for _, p := range c.Snapshot().Pools {
			got = append(got, fmt.Sprint(p.Name, " ", p.Allocatable, " ", p.Excluded))
		}
		if text := strings.Join(got, ", "); text != "services false [10.97.0.0/24], subnet true [192.0.2.0/24]" {
			return text
		}
		return ""
	})
}
