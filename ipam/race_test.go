package ipam_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// ledger is the history: who had which address from when to when. An address
// is somebody's from before Assign returns to before Release is called.
type ledger struct {
	mu     sync.Mutex
	owner  map[netip.Addr]string
	broken []string
}

func (l *ledger) take(a netip.Addr, handle string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if was := l.owner[a]; was != "" && was != handle {
		l.broken = append(l.broken, fmt.Sprintf("%s given to %s while %s has it", a, handle, was))
	}
	l.owner[a] = handle
}

func (l *ledger) give(a netip.Addr, handle string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.owner[a] == handle {
		delete(l.owner, a)
	}
}

// pairs is how many assignments with their releases a race makes: the short
// form unless MUSLIN_SOAK_PAIRS says otherwise.
func pairs(t *testing.T, short int) int {
	s := os.Getenv("MUSLIN_SOAK_PAIRS")
	if s == "" {
		return short
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("MUSLIN_SOAK_PAIRS: %v", err)
	}
	return n
}

// raceNode is a node whose allocator crashes and comes back.
type raceNode struct {
	t      *testing.T
	store  *ipamtest.Store
	name   model.NodeName
	pools  []model.Pool
	faults func(string) ipamtest.Fault
	left   *atomic.Int64
	book   *ledger
}

// live runs lives of the allocator, one after the other, until the work is
// done. What a life leaves unfinished the next one releases, as a kubelet does.
func (r *raceNode) live() {
	var unfinished []string
	for life := 0; ; life++ {
		client := r.store.Client(r.faults)
		a := ipam.NewAllocator(r.name, client)
		a.SetPools(r.pools)
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() {
			if err := a.Run(ctx); err != nil {
				r.t.Errorf("%s: run: %v", r.name, err)
			}
		})
		unfinished = r.work(a, client, unfinished, life)
		cancel()
		run.Wait()
		if !client.Crashed() && len(unfinished) == 0 {
			return
		}
	}
}

// work makes pairs with some concurrency until none is left or the client
// crashes. It returns the handles that are not known to be released.
func (r *raceNode) work(a *ipam.Allocator, client *ipamtest.Client, unfinished []string, life int) []string {
	var mu sync.Mutex
	var next []string
	for _, h := range unfinished {
		if !r.released(a, client, h) {
			next = append(next, h)
		}
	}
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for i := 0; !client.Crashed() && r.left.Add(-1) >= 0; i++ {
				h := fmt.Sprintf("k8s-pod-network.%s-%d-%d-%d", r.name, life, worker, i)
				if !r.pair(a, client, h) {
					mu.Lock()
					next = append(next, h)
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return next
}

// pair assigns and releases; it reports whether the release went through.
func (r *raceNode) pair(a *ipam.Allocator, client *ipamtest.Client, h string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addrs, err := a.Assign(ctx, ipam.Request{Handle: h, V4: 1 + rand.N(2)})
	if err != nil && !client.Crashed() && ipam.CodeOf(err) != ipam.CodePoolExhausted && ipam.CodeOf(err) != ipam.CodeUnavailable {
		r.t.Errorf("assign %s: %v", h, err)
	}
	for _, addr := range addrs {
		r.book.take(addr, h)
	}
	if err == nil && rand.N(3) > 0 {
		time.Sleep(rand.N(2 * time.Millisecond))
	}
	for _, addr := range addrs {
		r.book.give(addr, h)
	}
	return r.released(a, client, h)
}

func (r *raceNode) released(a *ipam.Allocator, client *ipamtest.Client, h string) bool {
	for try := range 20 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := a.Release(ctx, h)
		cancel()
		if err == nil {
			return true
		}
		if client.Crashed() {
			return false
		}
		time.Sleep(time.Duration(try) * time.Millisecond)
	}
	r.t.Errorf("release %s never went through", h)
	return true
}

// race runs nodes on one pool until n pairs are made, and checks the end.
func race(t *testing.T, nodes, n int, p model.Pool, rate int) {
	s := ipamtest.New()
	book := &ledger{owner: map[netip.Addr]string{}}
	var left atomic.Int64
	left.Store(int64(n))
	faults := func(call string) ipamtest.Fault {
		switch rand.N(rate) {
		case 0:
			return ipamtest.Conflict
		case 1, 2:
			return ipamtest.Lost
		case 3:
			return ipamtest.Refused
		case 4:
			if rand.N(8) == 0 {
				return ipamtest.Crash
			}
		}
		return ipamtest.None
	}
	var wg sync.WaitGroup
	for i := range nodes {
		r := &raceNode{t: t, store: s, name: model.NodeName(fmt.Sprint("n", i)), pools: []model.Pool{p}, faults: faults, left: &left, book: book}
		wg.Go(r.live)
	}
	wg.Wait()
	for _, b := range book.broken {
		t.Error(b)
	}
	sound(t, s, 0)
	settle(t, s, nodes, p)
}

// settle starts every node once more, without faults, and checks that repair
// leaves each block with exactly one confirmed affinity.
func settle(t *testing.T, s *ipamtest.Store, nodes int, p model.Pool) {
	for i := range nodes {
		n := start(t, s, model.NodeName(fmt.Sprint("n", i)), nil, p)
		<-n.Ready()
		if err := n.Release(t.Context(), "nobody"); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		wrong := mismatches(s)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("affinities and blocks do not fit: %v", wrong)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func mismatches(s *ipamtest.Store) []string {
	var wrong []string
	blocks := s.Blocks()
	claimed := map[netip.Prefix]bool{}
	for _, a := range s.Affinities() {
		b := blocks[a.CIDR]
		if b == nil || b.Node() != a.Node || a.State != model.BlockConfirmed {
			wrong = append(wrong, fmt.Sprintf("affinity %v", a))
		}
		claimed[a.CIDR] = true
	}
	for cidr, b := range blocks {
		if b.Affinity() != "" && !claimed[cidr] {
			wrong = append(wrong, fmt.Sprintf("block %s of %s without affinity", cidr, b.Node()))
		}
	}
	return wrong
}

// TestRace has 32 nodes fight for a /22 with 16 blocks, so that half of them
// live on borrowed addresses.
func TestRace(t *testing.T) {
	race(t, 32, pairs(t, 10_000), pool("p", "10.0.0.0/22", 26), 40)
}

// TestRaceScarce has fewer addresses than askers, and blocks of two.
func TestRaceScarce(t *testing.T) {
	race(t, 8, pairs(t, 2_000), pool("p", "10.0.0.0/28", 31), 40)
}
