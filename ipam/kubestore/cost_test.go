package kubestore_test

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/model"
)

// requests reads from the API server's own metrics how many requests it has
// answered, by verb and resource, for the IPAM kinds.
func requests(t testing.TB) map[string]int {
	t.Helper()
	out := map[string]int{}
	for line := range strings.Lines(server.MustKubectl(t, "", "get", "--raw", "/metrics")) {
		if !strings.HasPrefix(line, "apiserver_request_total{") {
			continue
		}
		labels, value, _ := strings.Cut(strings.TrimPrefix(line, "apiserver_request_total{"), "} ")
		var verb, resource string
		for _, l := range strings.Split(labels, ",") {
			switch k, v, _ := strings.Cut(l, "="); k {
			case "verb":
				verb = strings.Trim(v, `"`)
			case "resource":
				resource = strings.Trim(v, `"`)
			}
		}
		switch resource {
		case "ipamblocks", "ipamhandles", "blockaffinities":
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			out[verb+" "+resource] += int(n)
		}
	}
	return out
}

// since is what has been added to the counts; watches are left out, as their
// count comes when they end.
func since(before, after map[string]int) map[string]int {
	out := maps.Clone(after)
	for k, n := range before {
		out[k] -= n
	}
	maps.DeleteFunc(out, func(k string, n int) bool { return n == 0 || strings.HasPrefix(k, "WATCH") })
	return out
}

// TestRequestsOfAnAssignment counts at the API server: two writes for an
// address, no read and no list; and few block writes for a burst.
func TestRequestsOfAnAssignment(t *testing.T) {
	wipe(t)
	a := start(t, open(t), "node1", pool("p", "10.5.0.0/16", 26))
	if err := a.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	before := requests(t)
	if _, err := a.Assign(t.Context(), alloc.Request{Handle: "one", V4: 1}); err != nil {
		t.Fatal(err)
	}
	one := since(before, requests(t))
	t.Logf("one assignment: %v", one)
	if one["PUT ipamblocks"] != 1 || one["POST ipamhandles"] != 1 || len(one) != 2 {
		t.Errorf("one assignment took %v", one)
	}
	before = requests(t)
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			if _, err := a.Assign(context.Background(), alloc.Request{Handle: fmt.Sprint("burst.", i), V4: 1}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	burst := since(before, requests(t))
	t.Logf("burst of 100: %v", burst)
	if writes := burst["PUT ipamblocks"] + burst["POST ipamblocks"]; writes > 15 {
		t.Errorf("a burst of 100 took %d block writes", writes)
	}
	for k := range burst {
		if strings.HasPrefix(k, "LIST") {
			t.Errorf("a burst took %s", k)
		}
	}
}

// fill makes n blocks of a pool of /26, two to a node, with their affinities.
func fill(b testing.TB, s *kubestore.Store, base netip.Addr, n int) {
	b.Helper()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for i := range work {
				raw := base.As4()
				at := uint32(raw[0])<<24 | uint32(raw[1])<<16 | uint32(raw[2])<<8 | uint32(raw[3]) + uint32(i)*64
				cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)}), 26)
				node := model.NodeName(fmt.Sprintf("node%04d", i/2))
				block, err := ipam.NewBlock(cidr, ipam.HostAffinity(node), time.Now())
				if err == nil {
					block.Assign(20, ipam.Attribute{Handle: fmt.Sprint("h.", i), Owner: map[string]string{"node": string(node), "pod": "some-pod", "namespace": "default"}}, nil)
					_, err = s.Blocks().Create(context.Background(), block)
				}
				if err == nil {
					_, err = s.Affinities().Create(context.Background(), ipam.Affinity{Node: node, CIDR: cidr, State: model.BlockConfirmed, Type: "host"})
				}
				if err != nil {
					b.Error(err)
				}
			}
		})
	}
	for i := range n {
		if i%100 != 50 { // some room in every hundred
			work <- i
		}
	}
	close(work)
	wg.Wait()
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkCluster measures a node in a cluster of 5,000 nodes with two blocks
// each: how long until IPAM is ready and what it holds; and how long it takes
// to claim a first block, in a pool that has 16,384 and in one that has one in
// a hundred of 8,192 left. The peer is what an allocator does that keeps nothing
// and lists the blocks to find a free one.
func BenchmarkCluster(b *testing.B) {
	wipe(b)
	const blocks = 10_000
	s := open(b)
	fill(b, s, netip.MustParseAddr("10.0.0.0"), blocks)
	hasFree, tight := pool("roomy", "10.0.0.0/12", 26), pool("tight", "10.0.0.0/13", 26)
	b.Run("start", func(b *testing.B) {
		b.StopTimer()
		held := uint64(0)
		for i := range b.N {
			before := heap()
			a := alloc.New(model.NodeName(fmt.Sprintf("node%04d", i)), open(b))
			b.StartTimer()
			a.SetPools([]model.Pool{hasFree})
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			wg.Go(func() { _ = a.Run(ctx) })
			<-a.Ready()
			b.StopTimer()
			if n := len(a.Blocks()); n != 2 {
				b.Fatalf("%d blocks", n)
			}
			if after := heap(); after > before {
				held = max(held, after-before)
			}
			cancel()
			wg.Wait()
			runtime.KeepAlive(a)
		}
		b.ReportMetric(float64(held)/1e6, "MB-held")
		if held > 20e6 {
			b.Errorf("a node holds %d bytes", held)
		}
	})
	b.Run("peer-list", func(b *testing.B) {
		for range b.N {
			n := 0
			err := s.EachBlock(b.Context(), tight.CIDR, func(*ipam.Block, ipam.Revision) bool { n++; return true })
			if err != nil || n < 8000 {
				b.Fatalf("%d blocks: %v", n, err)
			}
		}
	})
	for _, p := range []model.Pool{hasFree, tight} {
		b.Run("claim-"+p.Name, func(b *testing.B) {
			b.StopTimer()
			for i := range b.N {
				a := start(b, s, model.NodeName(fmt.Sprintf("new-%s-%d-%d", p.Name, b.N, i)), p)
				<-a.Ready()
				b.StartTimer()
				err := a.EnsureBlock(b.Context(), model.IPv4)
				b.StopTimer()
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAssign measures an address of its own and its release.
func BenchmarkAssign(b *testing.B) {
	wipe(b)
	a := start(b, open(b), "node1", pool("p", "10.0.0.0/16", 26))
	if err := a.EnsureBlock(b.Context(), model.IPv4); err != nil {
		b.Fatal(err)
	}
	b.Run("assign-release", func(b *testing.B) {
		for i := range b.N {
			h := fmt.Sprintf("h.%d.%d", b.N, i)
			if _, err := a.Assign(b.Context(), alloc.Request{Handle: h, V4: 1}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			if err := a.Release(b.Context(), h); err != nil {
				b.Fatal(err)
			}
			b.StartTimer()
		}
	})
}
