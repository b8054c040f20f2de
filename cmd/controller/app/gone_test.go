package app_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/model"
)

// allocator runs a node's allocator until stop is called or the test ends.
func allocator(t *testing.T, node model.NodeName, pool model.Pool) (a *alloc.Allocator, stop func()) {
	t.Helper()
	store, err := kubestore.New(server.Config(), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a = alloc.New(node, store)
	a.SetPools([]model.Pool{pool})
	a.SetNode(model.Node{Name: node})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	select {
	case <-a.Ready():
	case <-time.After(3 * time.Minute):
		t.Fatal("the allocator is not ready after three minutes")
	}
	return a, stop
}

func assign(t *testing.T, a *alloc.Allocator, handle string) netip.Addr {
	t.Helper()
	addrs, err := a.Assign(t.Context(), alloc.Request{Handle: handle, V4: 1})
	if err != nil {
		t.Fatal(err)
	}
	return addrs[0]
}

func nodeObject(name string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Node\nmetadata: {name: %s}\n---\n", name)
}

// A deleted node gives back its blocks and addresses, also those it borrowed;
// an address that another node has in its block stays.
func TestDeletedNodeGivesBack(t *testing.T) {
	server.Install(t)
	shortGrace(t, server)
	server.MustKubectl(t, nodeObject("dies")+nodeObject("lives"), "apply", "-f", "-")
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "ipamblocks,ipamhandles,blockaffinities", "--all")
		server.MustKubectl(t, "", "delete", "node", "lives")
	})
	// two blocks of two addresses: the third address of either node is borrowed
	pool := model.Pool{Name: "tiny", CIDR: netip.MustParsePrefix("10.77.0.0/30"), BlockSize: 31, Allocatable: true}
	dies, stopDies := allocator(t, "dies", pool)
	lives, _ := allocator(t, "lives", pool)
	assign(t, dies, "net.d1")
	assign(t, lives, "net.l1")
	assign(t, dies, "net.d2")
	borrowed := assign(t, dies, "net.d3") // the last free one is in the other's block
	if len(dies.Borrowed()) != 1 || dies.Borrowed()[0].Addr() != borrowed {
		t.Fatalf("not borrowed: %v", dies.Borrowed())
	}
	replica(t, "one")
	shows(t, "one", "-n", "muslin-system", "get", "lease", "muslin-controller", "-o", "jsonpath={.spec.holderIdentity}")
	if got := strings.Fields(server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name")); len(got) != 4 {
		t.Fatalf("handles before: %v", got)
	}

	stopDies()
	server.MustKubectl(t, "", "delete", "node", "dies")
	gone := func() string {
		return server.MustKubectl(t, "", "get", "ipamblocks,blockaffinities,ipamhandles", "-o", "name")
	}
	for end := time.Now().Add(3 * time.Minute); strings.Contains(gone(), "dies") || strings.Contains(gone(), "net.d"); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("left behind:\n%s", gone())
		}
	}
	if n := len(strings.Fields(gone())); n != 3 {
		t.Errorf("want one block, one affinity, one handle of the other node:\n%s", gone())
	}
	// what was freed can be taken again: three addresses, one of them in a new block
	for i := range 3 {
		assign(t, lives, fmt.Sprintf("net.again%d", i))
	}
}

// A block of a deleted node in which another node has an address stays, without
// affinity.
func TestBlockWithABorrowersAddressStays(t *testing.T) {
	server.Install(t)
	shortGrace(t, server)
	server.MustKubectl(t, nodeObject("lends")+nodeObject("borrows"), "apply", "-f", "-")
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "ipamblocks,ipamhandles,blockaffinities", "--all")
		server.MustKubectl(t, "", "delete", "node", "borrows")
	})
	pool := model.Pool{Name: "one", CIDR: netip.MustParsePrefix("10.78.0.0/31"), BlockSize: 31, Allocatable: true}
	lends, stop := allocator(t, "lends", pool)
	assign(t, lends, "net.x1")
	borrows, _ := allocator(t, "borrows", pool)
	kept := assign(t, borrows, "net.y1")
	replica(t, "one")
	stop()
	server.MustKubectl(t, "", "delete", "node", "lends")
	shows(t, `"affinity":null`, "get", "ipamblock", "10-78-0-0-31", "-o", `go-template={"affinity":{{with .spec.affinity}}"{{.}}"{{else}}null{{end}}}`)
	shows(t, "net.y1", "get", "ipamblock", "10-78-0-0-31", "-o", "jsonpath={.spec.attributes}")
	if got := server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name"); strings.Contains(got, "net.x1") || !strings.Contains(got, "net.y1") {
		t.Errorf("handles: %s", got)
	}
	if got := assign(t, borrows, "net.y1"); got != kept {
		t.Errorf("the borrower's address changed: %s, was %s", got, kept)
	}
}

// What pods of a deleted node have by their status stays theirs while the pods
// are in the API, though the node's agent lives and the node comes back; other
// deleted nodes, later ones, give back meanwhile what nobody has.
func TestDeletedNodeKeepsWhatPodsHave(t *testing.T) {
	server.Install(t)
	shortGrace(t, server)
	server.MustKubectl(t, nodeObject("keeps")+nodeObject("marker")+nodeObject("marker2")+nodeObject("lives"), "apply", "-f", "-")
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "pods", "--all", "--grace-period=0", "--force")
		server.MustKubectl(t, "", "delete", "ipamblocks,ipamhandles,blockaffinities", "--all")
		server.MustKubectl(t, "", "delete", "node", "lives", "--ignore-not-found")
	})
	pool := model.Pool{Name: "kept", CIDR: netip.MustParsePrefix("10.79.0.0/24"), BlockSize: 29, Allocatable: true}
	keeps, _ := allocator(t, "keeps", pool)
	had := map[string]netip.Addr{}
	for _, name := range []string{"runs", "starts"} {
		had[name] = assignTo(t, keeps, "net."+name, name)
	}
	if _, err := keeps.Assign(t.Context(), alloc.Request{Handle: "vxlan-tunnel-addr-keeps", V4: 1, Attrs: map[string]string{"type": "vxlanTunnelAddress"}}); err != nil {
		t.Fatal(err)
	}
	podObject(t, "runs", "keeps", had["runs"].String())
	podObject(t, "starts", "keeps", "")
	spec := func() string {
		return server.MustKubectl(t, "", "get", "ipamblocks,ipamhandles,blockaffinities", "-o", `jsonpath={range .items[?(@.spec.affinity=="host:keeps")]}{.spec}{end}{range .items[?(@.spec.node=="keeps")]}{.spec}{end}`)
	}
	before := spec()
	marked := func(node string) {
		a, stop := allocator(t, model.NodeName(node), pool)
		assign(t, a, "net."+node)
		stop()
		server.MustKubectl(t, "", "delete", "node", node)
		gone(t, server, "ipamhandle", "net."+node)
		shows(t, "[]", "get", "blockaffinities", "-o", `go-template=[{{range .items}}{{if eq .spec.node "`+node+`"}}x{{end}}{{end}}]`)
	}
	server.MustKubectl(t, "", "delete", "node", "keeps")
	replica(t, "one")
	marked("marker")
	if after := spec(); after != before {
		t.Fatalf("while the node was away:\n%s\nbefore:\n%s", after, before)
	}
	server.MustKubectl(t, nodeObject("keeps"), "apply", "-f", "-")
	for name, addr := range had {
		if again := assignTo(t, keeps, "net."+name, name); again != addr {
			t.Errorf("%s had %s and has %s", name, addr, again)
		}
	}
	server.MustKubectl(t, "", "delete", "node", "keeps")
	marked("marker2")
	if after := spec(); after != before {
		t.Fatalf("once it had been back:\n%s\nbefore:\n%s", after, before)
	}
	server.MustKubectl(t, "", "delete", "pod", "runs", "starts", "--grace-period=0", "--force")
	for _, handle := range []string{"net.runs", "net.starts", "vxlan-tunnel-addr-keeps"} {
		gone(t, server, "ipamhandle", handle)
	}
}

// A fixed address whose pod was deleted by force, and made anew on another node
// that it waits there for, does not wait for the grace.
func TestFixedAddressMoves(t *testing.T) {
	server.Install(t)
	server.MustKubectl(t, v3("KubeControllersConfiguration", "default", `{controllers: {node: {leakGracePeriod: 24h}}}`), "apply", "--server-side", "--force-conflicts", "-f", "-")
	server.MustKubectl(t, nodeObject("dead")+nodeObject("lives"), "apply", "-f", "-")
	t.Cleanup(func() {
		server.MustKubectl(t, "", "delete", "kubecontrollersconfiguration", "default")
		server.MustKubectl(t, "", "delete", "pods", "--all", "--grace-period=0", "--force")
		server.MustKubectl(t, "", "delete", "ipamblocks,ipamhandles,blockaffinities", "--all")
		server.MustKubectl(t, "", "delete", "node", "dead", "lives")
	})
	pool := model.Pool{Name: "fixed", CIDR: netip.MustParsePrefix("10.84.0.0/24"), BlockSize: 29, Allocatable: true}
	dead, stop := allocator(t, "dead", pool)
	addr := assignTo(t, dead, "net.before", "db-0")
	stop()
	server.MustKubectl(t, fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: db-0, namespace: default, annotations: {cni.projectcalico.org/ipAddrs: '[%q]'}}\nspec: {nodeName: lives, containers: [{name: c, image: none}]}\n", addr), "apply", "-f", "-")
	replica(t, "one")
	gone(t, server, "ipamhandle", "net.before")
	lives, _ := allocator(t, "lives", pool)
	got, err := lives.Assign(t.Context(), alloc.Request{Handle: "net.after", Addrs: []netip.Addr{addr}, Attrs: map[string]string{"pod": "db-0", "namespace": "default"}})
	if err != nil || got[0] != addr {
		t.Errorf("%v %v", got, err)
	}
}
