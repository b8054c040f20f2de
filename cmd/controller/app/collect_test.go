package app_test

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
)

// shortGrace makes the collector's grace two seconds.
func shortGrace(t *testing.T, s *kubetest.Server) {
	t.Helper()
	s.MustKubectl(t, v3("KubeControllersConfiguration", "default", `{controllers: {node: {leakGracePeriod: 2s}}}`), "apply", "--server-side", "--force-conflicts", "-f", "-")
	t.Cleanup(func() { s.MustKubectl(t, "", "delete", "kubecontrollersconfiguration", "default") })
}

// podObject is a pod on a node, whose status has an address unless it is empty.
func podObject(t *testing.T, name, node string, addr string) {
	t.Helper()
	server.MustKubectl(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: default}\nspec: {nodeName: %s, containers: [{name: c, image: none}]}\n", name, node), "apply", "-f", "-")
	if addr != "" {
		podStatus(t, name, fmt.Sprintf(`{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, addr, addr))
	}
}

func podStatus(t *testing.T, name, patch string) {
	t.Helper()
	server.MustKubectl(t, "", "patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)
}

func assignTo(t *testing.T, a *alloc.Allocator, handle, pod string) netip.Addr {
	t.Helper()
	addrs, err := a.Assign(t.Context(), alloc.Request{Handle: handle, V4: 1, Attrs: map[string]string{"pod": pod, "namespace": "default"}})
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

// gone waits until no object of a kind has the name.
func gone(t *testing.T, s *kubetest.Server, kind, name string) {
	t.Helper()
	var out string
	for end := time.Now().Add(3 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		out, _ = s.Kubectl("", "get", kind, name)
		if strings.Contains(out, "NotFound") || strings.Contains(out, "not found") {
			return
		}
	}
	t.Fatalf("%s %s is still there:\n%s", kind, name, out)
}

// What nobody has any more is collected from a node that lives; what somebody
// has, or may have, stays.
func TestGarbageIsCollected(t *testing.T) {
	server.Install(t)
	server.MustKubectl(t, nodeObject("gcnode")+v3("IPPool", "gc", "{cidr: 10.80.0.0/24, blockSize: 29}"), "apply", "-f", "-")
	shortGrace(t, server)
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "pods", "--all", "--grace-period=0", "--force")
		server.MustKubectl(t, "", "delete", "ipamblocks,ipamhandles,blockaffinities", "--all")
		server.MustKubectl(t, "", "delete", "node", "gcnode")
		server.MustKubectl(t, "", "patch", "ippool", "gc", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		server.MustKubectl(t, "", "delete", "ippool", "gc")
	})
	pool := model.Pool{Name: "gc", CIDR: netip.MustParsePrefix("10.80.0.0/24"), BlockSize: 29, Allocatable: true}
	a, _ := allocator(t, "gcnode", pool)
	keeps := map[string]netip.Addr{}
	for _, name := range []string{"lives", "starts"} {
		keeps[name] = assignTo(t, a, "net."+name, name)
	}
	if _, err := a.Assign(t.Context(), alloc.Request{Handle: "vxlan-tunnel-addr-gcnode", V4: 1, Attrs: map[string]string{"type": "vxlanTunnelAddress"}}); err != nil {
		t.Fatal(err)
	}
	lost := []string{"missing", "moved", "finished", "renumbered"}
	for _, name := range lost {
		assignTo(t, a, "net."+name, name)
	}
	// A block of nothing but leaks, which goes when they have gone.
	for i := range 3 {
		assignTo(t, a, fmt.Sprintf("net.spare%d", i), "absent")
	}
	podObject(t, "lives", "gcnode", keeps["lives"].String())
	podObject(t, "starts", "gcnode", "")
	podObject(t, "moved", "other", "")
	podObject(t, "finished", "gcnode", "")
	podStatus(t, "finished", `{"status":{"phase":"Succeeded"}}`)
	podObject(t, "renumbered", "gcnode", "10.80.0.250")
	store, err := kubestore.New(server.Config(), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := store.Handles().Create(t.Context(), ipam.Handle{ID: "net.orphan", Blocks: map[netip.Prefix]int{pool.CIDR: 1}}); err != nil {
		t.Fatal(err)
	}

	replica(t, "one")
	for _, name := range append(lost, "spare0", "spare1", "spare2", "orphan") {
		gone(t, server, "ipamhandle", "net."+name)
	}
	for end := time.Now().Add(3 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		blocks := strings.Fields(server.MustKubectl(t, "", "get", "ipamblocks,blockaffinities", "-o", "name"))
		if len(blocks) == 2 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the empty block stays: %v", blocks)
		}
	}
	left := strings.Fields(server.MustKubectl(t, "", "get", "ipamhandles", "-o", "jsonpath={.items[*].metadata.name}"))
	if got := strings.Join(left, " "); got != "net.lives net.starts vxlan-tunnel-addr-gcnode" {
		t.Errorf("handles: %s", got)
	}
	for name, addr := range keeps {
		if again := assignTo(t, a, "net."+name, name); again != addr {
			t.Errorf("%s had %s and has %s", name, addr, again)
		}
	}
}

// A pool that is deleted goes when its last address has gone, not before.
func TestPoolIsDrained(t *testing.T) {
	server.Install(t)
	shortGrace(t, server)
	server.MustKubectl(t, nodeObject("drains")+v3("IPPool", "leaves", "{cidr: 10.81.0.0/24, blockSize: 29}")+v3("IPPool", "unused", "{cidr: 10.82.0.0/24}"), "apply", "-f", "-")
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "pods", "--all", "--grace-period=0", "--force")
		server.MustKubectl(t, "", "delete", "node", "drains")
	})
	a, _ := allocator(t, "drains", model.Pool{Name: "leaves", CIDR: netip.MustParsePrefix("10.81.0.0/24"), BlockSize: 29, Allocatable: true})
	addr := assignTo(t, a, "net.last", "last")
	podObject(t, "last", "drains", addr.String())
	replica(t, "one")
	shows(t, "projectcalico.org/ippool-finalizer", "get", "ippool", "leaves", "-o", "jsonpath={.metadata.finalizers}")
	server.MustKubectl(t, "", "delete", "ippool", "leaves", "--wait=false")
	shows(t, "Allocatable=False Terminating", conditionsOf("ippool", "leaves")...)
	server.MustKubectl(t, "", "delete", "ippool", "unused") // at once: it has no blocks
	time.Sleep(3 * time.Second)                             // passes that could do it wrong
	shows(t, "10.81.0.0/24", "get", "ippool", "leaves", "-o", "jsonpath={.spec.cidr}")
	a.SetPools(nil) // as the agent does
	if err := a.Release(t.Context(), "net.last"); err != nil {
		t.Fatal(err)
	}
	gone(t, server, "ippool", "leaves")
	if left := server.MustKubectl(t, "", "get", "ipamblocks,blockaffinities,ipamhandles", "-o", "name"); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

// Deleting Muslin as it was installed ends, although pools have blocks in use.
func TestUninstallIsNotStuck(t *testing.T) {
	own := kubetest.StartWithCRDs(t)
	shared := server
	server = own
	t.Cleanup(func() { server = shared })
	own.Install(t)
	own.MustKubectl(t, "", "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	own.MustKubectl(t, nodeObject("n1")+v3("IPPool", "used", "{cidr: 10.83.0.0/24}"), "apply", "-f", "-")
	a, stopAgent := allocator(t, "n1", model.Pool{Name: "used", CIDR: netip.MustParsePrefix("10.83.0.0/24"), BlockSize: 26, Allocatable: true})
	assignTo(t, a, "net.used", "used")
	stopAgent()
	replica(t, "one")
	shows(t, "projectcalico.org/ippool-finalizer", "get", "ippool", "used", "-o", "jsonpath={.metadata.finalizers}")
	own.MustKubectl(t, "", "delete", "-k", filepath.Join(kubetest.Root(), "manifests"), "--ignore-not-found", "--wait=false")
	gone(t, own, "crd", "ippools.projectcalico.org")
}
