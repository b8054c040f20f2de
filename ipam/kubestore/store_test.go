package kubestore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
)

var server *kubetest.Server

func TestMain(m *testing.M) {
	os.Exit(kubetest.Main(m, func(s *kubetest.Server) { server = s }))
}

var comparePrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func open(t testing.TB) *kubestore.Store {
	t.Helper()
	s, err := kubestore.New(server.Config(), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wipe deletes every IPAM object when the test ends: tests share a server.
func wipe(t testing.TB) {
	t.Cleanup(func() {
		for _, resource := range []string{"ipamblocks", "ipamhandles", "blockaffinities"} {
			server.MustKubectl(t, "", "delete", "--raw", "/apis/projectcalico.org/v3/"+resource)
		}
	})
}

// start runs an allocator until the test ends.
func start(t testing.TB, store ipam.Store, name model.NodeName, pools ...model.Pool) *alloc.Allocator {
	t.Helper()
	a := alloc.New(name, store)
	a.SetPools(pools)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := a.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return a
}

func pool(name, cidr string, bits int) model.Pool {
	return model.Pool{Name: name, CIDR: prefix(cidr), BlockSize: bits, Allocatable: true}
}

// TestContract holds the store to what ipam.Objects promises.
func TestContract(t *testing.T) {
	wipe(t)
	s, ctx := open(t), t.Context()
	handles := s.Handles()
	if _, _, err := handles.Get(ctx, "Net.ABC"); !errors.Is(err, ipam.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}
	h := ipam.Handle{ID: "Net.ABC", Blocks: map[netip.Prefix]int{prefix("10.0.0.0/26"): 1, prefix("fd00::40/122"): 2}}
	first, err := handles.Create(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handles.Create(ctx, h); !errors.Is(err, ipam.ErrExists) {
		t.Errorf("second create: %v", err)
	}
	got, rev, err := handles.Get(ctx, "Net.ABC")
	if err != nil || rev.Number != first.Number {
		t.Fatalf("get: %v, revision %d, want %d", err, rev.Number, first.Number)
	}
	if diff := cmp.Diff(h, got, comparePrefixes); diff != "" {
		t.Errorf("handle (-want +got):\n%s", diff)
	}
	h.Blocks[prefix("10.0.0.0/26")] = 3
	second, err := handles.Update(ctx, h, rev)
	if err != nil || second.Number <= first.Number {
		t.Fatalf("update: %v, revision %d after %d", err, second.Number, first.Number)
	}
	if _, err := handles.Update(ctx, h, rev); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("update of an old revision: %v", err)
	}
	if err := handles.Delete(ctx, h, rev); !errors.Is(err, ipam.ErrConflict) {
		t.Errorf("delete of an old revision: %v", err)
	}
	if err := handles.Delete(ctx, h, second); err != nil {
		t.Errorf("delete: %v", err)
	}
	if err := handles.Delete(ctx, h, second); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("second delete: %v", err)
	}
	if _, err := handles.Update(ctx, h, second); !errors.Is(err, ipam.ErrNotFound) {
		t.Errorf("update of nothing: %v", err)
	}
}

// TestWire compares the objects on the server with Calico's, field by field.
func TestWire(t *testing.T) {
	wipe(t)
	a := start(t, open(t), "node1", pool("p", "10.244.1.0/26", 26))
	addrs, err := a.Assign(t.Context(), alloc.Request{Handle: "k8s-pod-network.Cafe", V4: 1,
		Attrs: map[string]string{"pod": "web", "namespace": "default", "timestamp": "2026-08-22 10:00:01.1 +0000 UTC"}})
	if err != nil || addrs[0] != netip.MustParseAddr("10.244.1.0") {
		t.Fatalf("%v, %v", addrs, err)
	}
	var block struct {
		Spec map[string]any `json:"spec"`
	}
	get(t, &block, "ipamblock", "10-244-1-0-26")
	seq := block.Spec["sequenceNumber"]
	for field, want := range map[string]any{
		"cidr": "10.244.1.0/26", "affinity": "host:node1", "deleted": false, "strictAffinity": false,
		"attributes": []any{map[string]any{"handle_id": "k8s-pod-network.Cafe", "secondary": map[string]any{
			"namespace": "default", "node": "node1", "pod": "web", "timestamp": "2026-08-22 10:00:01.1 +0000 UTC"}}},
	} {
		if diff := cmp.Diff(want, block.Spec[field]); diff != "" {
			t.Errorf("spec.%s (-want +got):\n%s", field, diff)
		}
	}
	allocations := block.Spec["allocations"].([]any)
	if len(allocations) != 64 || allocations[0] != 0.0 || allocations[1] != nil {
		t.Errorf("allocations: %v", allocations)
	}
	if n := len(block.Spec["unallocated"].([]any)); n != 63 {
		t.Errorf("%d unallocated", n)
	}
	if seq == nil || block.Spec["affinityClaimTime"] == nil {
		t.Errorf("spec: %v", block.Spec)
	}
	var handle struct {
		Spec map[string]any `json:"spec"`
	}
	get(t, &handle, "ipamhandle", "k8s-pod-network.cafe")
	if diff := cmp.Diff(map[string]any{"handleID": "k8s-pod-network.Cafe", "block": map[string]any{"10.244.1.0/26": 1.0}, "deleted": false}, handle.Spec); diff != "" {
		t.Errorf("handle (-want +got):\n%s", diff)
	}
	var aff struct {
		Metadata struct{ Labels map[string]string } `json:"metadata"`
		Spec     map[string]any                     `json:"spec"`
	}
	get(t, &aff, "blockaffinity", "node1-10-244-1-0-26")
	if diff := cmp.Diff(map[string]any{"state": "confirmed", "node": "node1", "type": "host", "cidr": "10.244.1.0/26"}, aff.Spec); diff != "" {
		t.Errorf("affinity (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ipam.AffinityLabels(ipam.Affinity{Node: "node1", Type: "host", CIDR: prefix("10.0.0.0/8")}), aff.Metadata.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
}

func get(t *testing.T, into any, args ...string) {
	t.Helper()
	out := server.MustKubectl(t, "", append([]string{"get", "-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), into); err != nil {
		t.Fatal(err)
	}
}

// TestFinishesDeletes finds objects that another client has marked and left.
func TestFinishesDeletes(t *testing.T) {
	wipe(t)
	s, ctx := open(t), t.Context()
	h := ipam.Handle{ID: "half", Blocks: map[netip.Prefix]int{}}
	for _, then := range []string{"get", "create"} {
		if _, err := s.Handles().Create(ctx, h); err != nil {
			t.Fatal(err)
		}
		server.MustKubectl(t, "", "patch", "ipamhandle", "half", "--type=merge", "-p", `{"spec":{"deleted":true}}`)
		if then == "get" {
			if _, _, err := s.Handles().Get(ctx, "half"); !errors.Is(err, ipam.ErrNotFound) {
				t.Errorf("get: %v", err)
			}
			if out, _ := server.Kubectl("", "get", "ipamhandle", "half"); !strings.Contains(out, "NotFound") {
				t.Errorf("still there: %s", out)
			}
		} else if _, err := s.Handles().Create(ctx, h); err != nil {
			t.Errorf("create: %v", err)
		}
	}
}

// TestKeepsForeignMetadata: labels and finalizers of others survive a write.
func TestKeepsForeignMetadata(t *testing.T) {
	wipe(t)
	a := start(t, open(t), "node1", pool("p", "10.244.1.0/26", 26))
	if err := a.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	server.MustKubectl(t, "", "label", "ipamblock", "10-244-1-0-26", "example.com/mine=yes")
	for i := range 3 {
		if _, err := a.Assign(t.Context(), alloc.Request{Handle: fmt.Sprint("h", i), V4: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if out := server.MustKubectl(t, "", "get", "ipamblock", "10-244-1-0-26", "-o", "jsonpath={.metadata.labels}"); !strings.Contains(out, "example.com/mine") {
		t.Errorf("labels: %s", out)
	}
}

// TestRestart: a second life knows the block and its owners; what changed while
// nobody looked, or while the server was away, is seen.
func TestRestart(t *testing.T) {
	wipe(t)
	s := open(t)
	p := []model.Pool{pool("p", "10.1.0.0/24", 26), pool("q", "fd00:1::/64", 122)}
	first := start(t, s, "node1", p...)
	addrs, err := first.Assign(t.Context(), alloc.Request{Handle: "h", V4: 1, V6: 1})
	if err != nil {
		t.Fatal(err)
	}
	second := start(t, s, "node1", p...)
	<-second.Ready()
	if diff := cmp.Diff(first.Blocks(), second.Blocks(), comparePrefixes); diff != "" {
		t.Errorf("blocks (-first +second):\n%s", diff)
	}
	again, err := second.Assign(t.Context(), alloc.Request{Handle: "h", V4: 1, V6: 1})
	if err != nil || !slices.Equal(addrs, again) {
		t.Errorf("got %v, then %v, %v", addrs, again, err)
	}
	server.Restart(t)
	if err := second.Release(t.Context(), "h"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first allocator to see the release", func() bool { return len(first.Allocations()) == 0 })
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited a minute for %s", what)
		}
	}
}

// TestLists: names and blocks come back as they were written.
func TestLists(t *testing.T) {
	wipe(t)
	s := open(t)
	var want []netip.Prefix
	for _, text := range []string{"10.3.0.0/26", "10.3.0.64/26", "fd00:3::/122", "fd00:3::40/122", "fd00:3:0:1:2:3:4:0/122", "11.3.0.0/26"} {
		b, err := ipam.NewBlock(prefix(text), "host:somebody", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blocks().Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		want = append(want, prefix(text))
	}
	for _, within := range []netip.Prefix{prefix("10.3.0.0/16"), prefix("fd00:3::/32")} {
		in := slices.DeleteFunc(slices.Clone(want), func(p netip.Prefix) bool { return !within.Overlaps(p) })
		slices.SortFunc(in, netip.Prefix.Compare)
		var got []netip.Prefix
		eventually(t, "the server's cache", func() bool {
			var err error
			if got, err = s.BlockCIDRs(t.Context(), within); err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(got, netip.Prefix.Compare)
			return slices.Equal(got, in)
		})
		got = nil
		err := s.EachBlock(t.Context(), within, func(b *ipam.Block, _ ipam.Revision) bool { got = append(got, b.CIDR()); return true })
		slices.SortFunc(got, netip.Prefix.Compare)
		if err != nil || !slices.Equal(got, in) {
			t.Errorf("each block in %s: %v, %v, want %v", within, got, err, in)
		}
	}
}

// TestNamesFrom: windows show what exists in their stretch and nothing else, in
// the order of names, and together all of it.
func TestNamesFrom(t *testing.T) {
	wipe(t)
	s := open(t)
	var want []string
	var wg sync.WaitGroup
	for i := range 600 {
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 6, byte(i / 4), byte(i % 4 * 64)}), 26)
		want = append(want, ipam.BlockName(cidr))
		if i%16 == 0 {
			wg.Wait()
		}
		wg.Go(func() {
			b, err := ipam.NewBlock(cidr, "host:somebody", time.Now())
			if err == nil {
				_, err = s.Blocks().Create(context.Background(), b)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	slices.Sort(want)
	for _, from := range []string{"10-6-0-0-26", "10-6-12-64-26", "10-6-12-9-26", "10-5-255-192-26", want[599], "11-0-0-0-26"} {
		left := want[sort.SearchStrings(want, from):]
		for at, more := from, true; more; {
			var got []string
			var err error
			if got, more, err = s.NamesFrom(t.Context(), at); err != nil {
				t.Fatalf("names from %s: %v", at, err)
			}
			if len(got) > len(left) || !slices.Equal(got, left[:len(got)]) || more != (len(got) < len(left)) || more && len(got) < 100 {
				t.Fatalf("from %s: %d names %.40q, more %v; want the first of %d %.40q", at, len(got), got, more, len(left), left)
			}
			if left = left[len(got):]; more {
				at = left[0]
			}
		}
	}
}

// TestRefused: without permission an assignment fails at once and says so.
func TestRefused(t *testing.T) {
	s, err := kubestore.New(server.ConfigAs("nobody"), kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := ipam.NewBlock(prefix("10.4.0.0/26"), "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blocks().Create(t.Context(), b); !errors.Is(err, ipam.ErrRefused) || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("got %v", err)
	}
}
