package alloc_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// pool makes an allocatable pool.
func pool(name, cidr string, bits int) model.Pool {
	return model.Pool{Name: name, CIDR: prefix(cidr), BlockSize: bits, Allocatable: true}
}

// node is a running allocator with its client.
type node struct {
	*alloc.Allocator
	client *ipamtest.Client
	stop   func()
}

// start runs an allocator until the test or stop ends.
func start(t testing.TB, s *ipamtest.Store, name model.NodeName, faults func(string) ipamtest.Fault, pools ...model.Pool) *node {
	t.Helper()
	return run(t, s.Client(faults), name, nil, pools...)
}

// startLive runs an allocator on a node with these endpoints.
func startLive(t testing.TB, s *ipamtest.Store, name model.NodeName, eps []alloc.Live, pools ...model.Pool) *node {
	t.Helper()
	return run(t, s.Client(nil), name, eps, pools...)
}

func run(t testing.TB, c *ipamtest.Client, name model.NodeName, eps []alloc.Live, pools ...model.Pool) *node {
	t.Helper()
	a := alloc.New(name, c)
	a.SetPools(pools)
	a.SetLive(eps)
	a.SetNode(model.Node{Name: name, Labels: map[string]string{"kubernetes.io/hostname": string(name)}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := a.Run(ctx); err != nil {
			t.Errorf("run %s: %v", name, err)
		}
	}()
	stop := func() { cancel(); <-done }
	t.Cleanup(stop)
	return &node{Allocator: a, client: c, stop: stop}
}

func (n *node) assign(t *testing.T, handle string) netip.Addr {
	t.Helper()
	addrs, err := n.Assign(t.Context(), alloc.Request{Handle: handle, V4: 1})
	if err != nil || len(addrs) != 1 {
		t.Fatalf("assign %s: %v, %v", handle, addrs, err)
	}
	return addrs[0]
}

func (n *node) release(t *testing.T, handle string) {
	t.Helper()
	if err := n.Release(t.Context(), handle); err != nil {
		t.Fatalf("release %s: %v", handle, err)
	}
}

// sound checks the store: rules kept, and as many allocations as expected.
func sound(t *testing.T, s *ipamtest.Store, want int) {
	t.Helper()
	for _, b := range s.Broken() {
		t.Error(b)
	}
	counted := map[string]map[netip.Prefix]int{}
	got := 0
	for cidr, b := range s.Blocks() {
		for a := range b.Allocations() {
			got++
			if counted[a.Handle] == nil {
				counted[a.Handle] = map[netip.Prefix]int{}
			}
			counted[a.Handle][cidr]++
		}
	}
	if got != want {
		t.Errorf("%d addresses are assigned, want %d", got, want)
	}
	stored := map[string]map[netip.Prefix]int{}
	for id, h := range s.Handles() {
		stored[id] = h.Blocks
	}
	if diff := cmp.Diff(counted, stored, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("handles differ from the blocks (-blocks +handles):\n%s", diff)
	}
}

func TestAssignCostsTwoWrites(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("p", "10.0.0.0/16", 26))
	if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	blocks := n.Blocks()
	if len(blocks) != 1 || blocks[0].State != model.BlockConfirmed || blocks[0].Node != "n1" {
		t.Fatalf("blocks: %v", blocks)
	}
	n.client.Calls()
	a := n.assign(t, "h.1")
	if diff := cmp.Diff(map[string]int{"create handle": 1, "update block": 1}, n.client.Calls()); diff != "" {
		t.Errorf("calls of an assignment (-want +got):\n%s", diff)
	}
	if again := n.assign(t, "h.1"); again != a {
		t.Errorf("the same handle got %s, then %s", a, again)
	}
	if calls := n.client.Calls(); len(calls) != 0 {
		t.Errorf("assigning again made calls: %v", calls)
	}
	if !blocks[0].CIDR.Contains(a) {
		t.Errorf("%s is not in %v", a, blocks[0])
	}
	sound(t, s, 1)
	n.release(t, "h.1")
	n.release(t, "h.1")
	n.release(t, "never.seen")
	sound(t, s, 0)
}

func TestAssignFromScratch(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("p", "10.0.0.0/16", 26), pool("q", "fd00::/64", 122))
	addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "h", V4: 2, V6: 1, Attrs: map[string]string{"pod": "a", "namespace": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(addrs) != 3 || !addrs[0].Is4() || !addrs[1].Is4() || !addrs[2].Is6() {
		t.Fatalf("got %v", addrs)
	}
	sound(t, s, 3)
	for _, a := range n.Allocations() {
		if a.Owner["pod"] != "a" || a.Owner["namespace"] != "b" || a.Owner["node"] != "n1" || a.Owner["timestamp"] == "" || a.Handle != "h" {
			t.Errorf("attributes: %v", a)
		}
	}
	want := []alloc.Usage{
		{Pool: "p", Family: model.IPv4, Blocks: 1, Capacity: 64, InUse: 2},
		{Pool: "q", Family: model.IPv6, Blocks: 1, Capacity: 64, InUse: 1},
	}
	if diff := cmp.Diff(want, n.Usage()); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	if err := n.ReleaseAddr(t.Context(), "h", addrs[0]); err != nil {
		t.Fatal(err)
	}
	sound(t, s, 2)
	if err := n.ReleaseAddr(t.Context(), "h", addrs[0]); err != nil {
		t.Fatal(err)
	}
	n.release(t, "h")
	sound(t, s, 0)
}

func TestBurstSharesWrites(t *testing.T) {
	s := ipamtest.New()
	// Calls take their time, as on a network.
	slow := func(string) ipamtest.Fault { time.Sleep(time.Millisecond); return ipamtest.None }
	n := start(t, s, "n1", slow, pool("p", "10.0.0.0/16", 26))
	if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	n.client.Calls()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[netip.Addr]bool{}
	for i := range 100 {
		wg.Go(func() {
			addrs, err := n.Assign(context.Background(), alloc.Request{Handle: fmt.Sprint("h.", i), V4: 1})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if seen[addrs[0]] {
				t.Errorf("%s was assigned twice", addrs[0])
			}
			seen[addrs[0]] = true
		})
	}
	wg.Wait()
	calls := n.client.Calls()
	if writes := calls["update block"] + calls["create block"]; writes > 15 {
		t.Errorf("100 assignments took %d block writes: %v", writes, calls)
	}
	if calls["list block"]+calls["list names"] != 0 {
		t.Errorf("something was listed: %v", calls)
	}
	sound(t, s, 100)
}

func TestPoolSelection(t *testing.T) {
	sel := func(text string) model.Selector {
		s, err := selector.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	with := func(p model.Pool, change func(*model.Pool)) model.Pool { change(&p); return p }
	plain := pool("m-plain", "10.1.0.0/24", 26)
	tests := []struct {
		name  string
		pools []model.Pool
		req   alloc.Request
		want  string // prefix the address must lie in
		code  ipam.Code
		says  string
	}{
		{name: "by name", pools: []model.Pool{plain, pool("a", "10.2.0.0/24", 26)}, want: "10.2.0.0/24"},
		{name: "node selector", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.NodeSelector = sel("has(gpu)") })}, want: "10.1.0.0/24"},
		{name: "namespace selector misses", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.NamespaceSelector = sel("team == 'x'") })}, want: "10.1.0.0/24"},
		{name: "namespace selector hits", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.NamespaceSelector = sel("team == 'x'") })},
			req: alloc.Request{NamespaceLabels: map[string]string{"team": "x"}}, want: "10.2.0.0/24"},
		{name: "namespace selector and tunnel", pools: []model.Pool{with(plain, func(p *model.Pool) { p.NamespaceSelector = sel("all()") })},
			req: alloc.Request{Use: model.UseTunnel}, code: ipam.CodeNoPool, says: "namespaceSelector"},
		{name: "disabled", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.Disabled = true })}, want: "10.1.0.0/24"},
		{name: "deleting", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.Deleting = true })}, want: "10.1.0.0/24"},
		{name: "overlapping", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.Allocatable = false })}, want: "10.1.0.0/24"},
		{name: "manual", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.Manual = true })}, want: "10.1.0.0/24"},
		{name: "manual by name", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.Manual = true })},
			req: alloc.Request{PoolsV4: []string{"a"}}, want: "10.2.0.0/24"},
		{name: "by cidr, selectors ignored", pools: []model.Pool{plain, with(pool("a", "10.2.0.0/24", 26), func(p *model.Pool) { p.NodeSelector = sel("has(gpu)") })},
			req: alloc.Request{PoolsV4: []string{"10.2.0.0/24"}}, want: "10.2.0.0/24"},
		{name: "load balancer pool", pools: []model.Pool{with(plain, func(p *model.Pool) { p.AllowedUses = []model.Use{"LoadBalancer"} })},
			code: ipam.CodeNoPool, says: "not for the use Workload"},
		{name: "no pool", code: ipam.CodeNoPool, says: "there is no IPv4 pool"},
		{name: "every reason", pools: []model.Pool{
			with(plain, func(p *model.Pool) { p.Disabled = true }),
			with(plain, func(p *model.Pool) { p.Manual = true }),
			with(plain, func(p *model.Pool) { p.NodeSelector = sel("has(gpu)") }),
		}, code: ipam.CodeNoPool, says: "1 assigned manually only, 1 disabled, overlapping or being deleted, 1 not for this node"},
		{name: "unknown pool", pools: []model.Pool{plain}, req: alloc.Request{PoolsV4: []string{"x"}}, code: ipam.CodePoolNotFound, says: "IPPool x"},
		{name: "disabled by name", pools: []model.Pool{with(plain, func(p *model.Pool) { p.Disabled = true })}, req: alloc.Request{PoolsV4: []string{"m-plain"}}, code: ipam.CodePoolUnusable, says: "spec.disabled"},
		{name: "wrong family", pools: []model.Pool{pool("six", "fd00::/64", 122)}, req: alloc.Request{PoolsV4: []string{"six"}}, code: ipam.CodePoolUnusable, says: "spec.cidr"},
		{name: "wrong use by name", pools: []model.Pool{with(plain, func(p *model.Pool) { p.AllowedUses = []model.Use{"Tunnel"} })}, req: alloc.Request{PoolsV4: []string{"m-plain"}}, code: ipam.CodePoolUnusable, says: "spec.allowedUses"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			n := start(t, ipamtest.New(), "n1", nil, tt.pools...)
			tt.req.Handle, tt.req.V4 = "h", 1
			addrs, err := n.Assign(t.Context(), tt.req)
			if ipam.CodeOf(err) != tt.code {
				t.Fatalf("got %v, %v; want code %q", addrs, err, tt.code)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("error %q does not say %q", err, tt.says)
				}
				return
			}
			if !prefix(tt.want).Contains(addrs[0]) {
				t.Errorf("got %v, want one in %s", addrs, tt.want)
			}
		})
	}
}

func TestNextPoolWhenFull(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("a", "10.0.0.0/29", 30), pool("b", "10.1.0.0/24", 26))
	for i := range 12 {
		n.assign(t, fmt.Sprint("h.", i))
	}
	n.client.Calls()
	n.assign(t, "one.more")
	if calls := n.client.Calls(); calls["list block"]+calls["list names"]+calls["get block"] != 0 {
		t.Errorf("the full pool was looked at again: %v", calls)
	}
	sound(t, s, 13)
}

func TestBorrowAndReturn(t *testing.T) {
	s := ipamtest.New()
	p := pool("a", "10.0.0.0/29", 30)
	n1 := start(t, s, "n1", nil, p)
	n2 := start(t, s, "n2", nil, p)
	n3 := start(t, s, "n3", nil, p)
	n1.assign(t, "n1.x")
	n2.assign(t, "n2.x")
	got := n3.assign(t, "n3.x")
	if diff := cmp.Diff([]netip.Prefix{netip.PrefixFrom(got, 32)}, n3.Borrowed(), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("borrowed (-want +got):\n%s", diff)
	}
	if u := n3.Usage(); len(u) != 1 || u[0].Borrowed != 1 || u[0].Blocks != 0 {
		t.Errorf("usage: %v", u)
	}
	if again := n3.assign(t, "n3.x"); again != got {
		t.Errorf("got %s, then %s", got, again)
	}
	sound(t, s, 3)

	// A new life of the node knows the address by the handle.
	n3.stop()
	n3 = start(t, s, "n3", nil, p)
	if again := n3.assign(t, "n3.x"); again != got {
		t.Errorf("got %s, after a restart %s", got, again)
	}
	sound(t, s, 3)
	for i := range 5 {
		n3.assign(t, fmt.Sprint("n3.", i))
	}
	sound(t, s, 8)
	_, err := n3.Assign(t.Context(), alloc.Request{Handle: "over", V4: 1})
	if ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("ninth of eight addresses: %v", err)
	}
	sound(t, s, 8)
	n3.stop()
	n3 = start(t, s, "n3", nil, p)
	n3.SetLive([]alloc.Live{{Addr: got, Handle: "n3.x"}})
	if len(n3.Borrowed()) != 1 {
		t.Errorf("adopted address is not borrowed: %v", n3.Borrowed())
	}
	n3.SetLive(nil)
	n3.release(t, "n3.x")
	if len(n3.Borrowed()) != 0 {
		t.Errorf("still borrowed: %v", n3.Borrowed())
	}
	sound(t, s, 7)
}

func TestStrictAffinity(t *testing.T) {
	s := ipamtest.New()
	p := pool("a", "10.0.0.0/29", 30)
	n1, n2 := start(t, s, "n1", nil, p), start(t, s, "n2", nil, p)
	for _, n := range []*node{n1, n2} {
		n.SetConfig(alloc.Config{StrictAffinity: true, AutoAllocateBlocks: true})
	}
	for i := range 4 {
		n1.assign(t, fmt.Sprint("n1.", i))
	}
	n2.assign(t, "n2.x")
	_, err := n1.Assign(t.Context(), alloc.Request{Handle: "over", V4: 1})
	if ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("got %v", err)
	}
	n1.SetConfig(alloc.Config{StrictAffinity: true, AutoAllocateBlocks: true, MaxBlocksPerHost: 1})
	_, err = n1.Assign(t.Context(), alloc.Request{Handle: "over", V4: 1, Attrs: map[string]string{"pod": "p", "namespace": "ns"}})
	if ipam.CodeOf(err) != ipam.CodeBlockLimit || !strings.HasPrefix(err.Error(), "Pod ns/p: ") {
		t.Errorf("got %v", err)
	}
	n1.SetConfig(alloc.Config{AutoAllocateBlocks: true, MaxBlocksPerHost: 1})
	n1.assign(t, "at the limit, borrowed")
	if len(n1.Borrowed()) != 1 {
		t.Errorf("borrowed: %v", n1.Borrowed())
	}
	n1.SetConfig(alloc.Config{})
	n1.assign(t, "no new blocks, borrowed")
	sound(t, s, 7)
}

func TestReservations(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("a", "10.0.0.0/29", 30))
	n.SetReservations([]netip.Prefix{prefix("10.0.0.0/30"), prefix("10.0.0.4/31"), prefix("10.0.0.6/32")})
	if got := n.assign(t, "only"); got != addr("10.0.0.7") {
		t.Errorf("got %s", got)
	}
	_, err := n.Assign(t.Context(), alloc.Request{Handle: "none", V4: 1})
	if ipam.CodeOf(err) != ipam.CodePoolExhausted || !strings.Contains(err.Error(), "IPReservation") {
		t.Errorf("got %v", err)
	}
	addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "by name", Addrs: []netip.Addr{addr("10.0.0.5")}})
	if err != nil || addrs[0] != addr("10.0.0.5") {
		t.Errorf("got %v, %v", addrs, err)
	}
	sound(t, s, 2)
}

func TestAssignAddrs(t *testing.T) {
	s := ipamtest.New()
	pools := []model.Pool{pool("a", "10.0.0.0/16", 26), pool("six", "fd00::/64", 122),
		{Name: "off", CIDR: prefix("10.9.0.0/16"), BlockSize: 26, Disabled: true, Allocatable: true},
		{Name: "lb", CIDR: prefix("10.8.0.0/16"), BlockSize: 26, AllowedUses: []model.Use{"LoadBalancer"}, Allocatable: true}}
	n1, n2 := start(t, s, "n1", nil, pools...), start(t, s, "n2", nil, pools...)
	want := []netip.Addr{addr("10.0.3.7"), addr("fd00::99")}
	for range 2 {
		got, err := n1.Assign(t.Context(), alloc.Request{Handle: "h", Addrs: want})
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("got %v, %v", got, err)
		}
	}
	sound(t, s, 2)
	ask := func(n *node, a string, opt ...func(*alloc.Request)) error {
		r := alloc.Request{Handle: "other", Addrs: []netip.Addr{addr(a)}}
		for _, o := range opt {
			o(&r)
		}
		_, err := n.Assign(t.Context(), r)
		return err
	}
	for _, tt := range []struct {
		err  error
		code ipam.Code
	}{
		{ask(n1, "10.0.3.7"), ipam.CodeTaken},
		{ask(n2, "10.0.3.7"), ipam.CodeTaken},
		{ask(n1, "11.0.0.1"), ipam.CodeOutsidePools},
		{ask(n1, "10.9.0.1"), ipam.CodePoolUnusable},
		{ask(n1, "10.8.0.1"), ipam.CodePoolUnusable},
		{ask(n1, "10.8.0.1", func(r *alloc.Request) { r.Use = model.UseLoadBalancer; r.Addrs = append(r.Addrs, r.Addrs[0]) }), ipam.CodeBadRequest},
	} {
		if ipam.CodeOf(tt.err) != tt.code {
			t.Errorf("got %v, want %s", tt.err, tt.code)
		}
	}
	sound(t, s, 2)
	if err := ask(n2, "10.0.3.8"); err != nil {
		t.Fatal(err)
	}
	if len(n2.Borrowed()) != 1 {
		t.Errorf("borrowed: %v", n2.Borrowed())
	}
	n2.SetConfig(alloc.Config{StrictAffinity: true, AutoAllocateBlocks: true})
	if err := ask(n2, "10.0.3.9", func(r *alloc.Request) { r.Handle = "strict" }); ipam.CodeOf(err) != ipam.CodeForeignBlock {
		t.Errorf("got %v", err)
	}
	sound(t, s, 3)
	n2.release(t, "other")
	n1.release(t, "h")
	sound(t, s, 0)
}

// An empty block of another node is had by way of the controller alone: this node
// writes nothing of the other's.
func TestReclaimEmptyBlocks(t *testing.T) {
	for name, controller := range map[string]bool{"with a controller": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { reclaimEmptyBlocks(t, controller) })
		})
	}
}

func reclaimEmptyBlocks(t *testing.T, controller bool) {
	s, cidr := ipamtest.New(), prefix("10.0.0.0/30")
	old, err := ipam.NewBlock(cidr, "host:gone", time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c := s.Client(nil)
	if _, err := c.Blocks().Create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Affinities().Create(t.Context(), ipam.Affinity{Node: "gone", CIDR: cidr, State: model.BlockConfirmed, Type: "host"}); err != nil {
		t.Fatal(err)
	}
	if controller {
		go func() {
			for len(s.Affinities()) < 2 {
				time.Sleep(100 * time.Millisecond)
			}
			if err := alloc.Vacate(t.Context(), c, "n1", cidr); err != nil {
				t.Error(err)
			}
		}()
	}
	n := start(t, s, "n1", nil, pool("a", "10.0.0.0/30", 30))
	began := time.Now()
	n.assign(t, "h")
	owner, borrowed := model.NodeName("n1"), 0
	if !controller {
		owner, borrowed = "gone", 1
	}
	if affs := s.Affinities(); len(affs) != 1 || affs[0].Node != owner || affs[0].State != model.BlockConfirmed {
		t.Errorf("affinities: %v", affs)
	}
	if len(n.Borrowed()) != borrowed || time.Since(began) > 5*time.Second {
		t.Errorf("borrowed: %v, after %v", n.Borrowed(), time.Since(began))
	}
	// A young block is left alone, and a controller that said nothing is not waited
	// for again: the next ones borrow.
	n2 := start(t, s, "n2", nil, pool("a", "10.0.0.0/30", 30))
	n.release(t, "h")
	n2.assign(t, "h2")
	began = time.Now()
	n.assign(t, "h3")
	if len(n2.Borrowed()) != 1 || time.Since(began) > time.Second {
		t.Errorf("borrowed: %v, after %v", n2.Borrowed(), time.Since(began))
	}
	if err := alloc.Vacate(t.Context(), c, "n2", cidr); !errors.Is(err, alloc.ErrNotEmpty) {
		t.Errorf("a block in use: %v", err)
	}
	n.stop()
	n2.stop()
}

func TestCooldown(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("a", "10.0.0.0/31", 31))
	n.SetConfig(alloc.Config{AutoAllocateBlocks: true, CooldownSeconds: 1200})
	n.assign(t, "a")
	n.assign(t, "b")
	n.release(t, "a")
	sound(t, s, 1)
	if _, err := n.Assign(t.Context(), alloc.Request{Handle: "c", V4: 1}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("got %v", err)
	}
	n.SetConfig(alloc.Config{AutoAllocateBlocks: true})
	n.assign(t, "c")
	sound(t, s, 2)
}

func TestBadRequests(t *testing.T) {
	n := start(t, ipamtest.New(), "n1", nil, pool("a", "10.0.0.0/24", 26))
	for _, r := range []alloc.Request{
		{},
		{Handle: "h"},
		{Handle: "h", V4: -1},
		{Handle: "h", V6: 5000},
		{Handle: strings.Repeat("h", 300), V4: 1},
		{Handle: "h", Addrs: []netip.Addr{{}}},
		{Handle: "h", Addrs: []netip.Addr{addr("::ffff:10.0.0.1")}},
	} {
		if _, err := n.Assign(t.Context(), r); ipam.CodeOf(err) != ipam.CodeBadRequest {
			t.Errorf("%+v: got %v", r, err)
		}
	}
}

func TestNotReady(t *testing.T) {
	a := alloc.New("n1", ipamtest.New().Client(nil))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := a.Assign(ctx, alloc.Request{Handle: "h", V4: 1})
	if ipam.CodeOf(err) != ipam.CodeUnavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := a.Release(ctx, "h"); err == nil {
		t.Error("release did not wait")
	}
	if err := a.EnsureBlock(ctx, model.IPv4); err == nil {
		t.Error("ensure did not wait")
	}
	if err := a.ReleaseAddr(ctx, "h", addr("10.0.0.1")); err == nil {
		t.Error("release of an address did not wait")
	}
}

// TestRestartFindsBorrowed: a node has borrowed, restarts, and has room of its
// own by then: the handle leads back to the borrowed address, and what was
// assigned beside it is given back.
func TestRestartFindsBorrowed(t *testing.T) {
	s := ipamtest.New()
	full, hasFree := pool("z", "10.0.0.0/30", 30), pool("a", "10.1.0.0/24", 26)
	start(t, s, "n1", nil, full).assign(t, "x")
	n2 := start(t, s, "n2", nil, full)
	got := n2.assign(t, "y")
	n2.stop()
	n2 = start(t, s, "n2", nil, full, hasFree)
	if again := n2.assign(t, "y"); again != got {
		t.Errorf("got %s, after the restart %s", got, again)
	}
	if b := n2.Borrowed(); len(b) != 1 {
		t.Errorf("borrowed: %v", b)
	}
	sound(t, s, 2)
	n2.stop()
	n2 = start(t, s, "n2", nil, full, hasFree)
	if err := n2.ReleaseAddr(t.Context(), "y", got); err != nil {
		t.Fatal(err)
	}
	sound(t, s, 1)
}

// TestFailedGrowthKeepsTheRest: a handle that asks for more than there is keeps
// what it had.
func TestFailedGrowthKeepsTheRest(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("p", "10.0.0.0/30", 31))
	first := n.assign(t, "h")
	if _, err := n.Assign(t.Context(), alloc.Request{Handle: "h", V4: 9}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("got %v", err)
	}
	sound(t, s, 1)
	got, err := n.Assign(t.Context(), alloc.Request{Handle: "h", V4: 4})
	if err != nil || len(got) != 4 || !slices.Contains(got, first) {
		t.Errorf("got %v, %v", got, err)
	}
	sound(t, s, 4)
}
