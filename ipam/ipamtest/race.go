package ipamtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// Conn is a client of some store that can crash.
type Conn interface {
	ipam.Store
	Crashed() bool
}

// Race has nodes assign and release on one pool, each through an allocator
// that crashes and comes back as the faults say.
type Race struct {
	Nodes   int
	Pairs   int // assignments with their releases, in all
	Pool    model.Pool
	Connect func() Conn // a new client, for a new life of an allocator
	// Meanwhile, if set, is called once half of the pairs are made.
	Meanwhile func()

	left  atomic.Int64
	half  sync.Once
	begun time.Time
	book  ledger
}

// ledger is the history: who had which address from when to when. An address
// is somebody's from when Assign returns until Release is called.
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

// RandomFaults makes about five calls in rate go wrong; one in eight of the
// fifth kind is a crash.
func RandomFaults(rate int) func(string) Fault {
	return func(string) Fault {
		switch rand.N(rate) {
		case 0:
			return Conflict
		case 1, 2:
			return Lost
		case 3:
			return Refused
		case 4:
			if rand.N(8) == 0 {
				return Crash
			}
		}
		return None
	}
}

// Run runs the race and reports an address that had two owners at once. What
// is left in the store afterwards is the caller's to check: there should be no
// allocation and no handle.
func (r *Race) Run(t testing.TB) {
	r.begun = time.Now()
	r.left.Store(int64(r.Pairs))
	r.book.owner = map[netip.Addr]string{}
	var wg sync.WaitGroup
	for i := range r.Nodes {
		wg.Go(func() { r.live(t, model.NodeName(fmt.Sprint("n", i))) })
	}
	wg.Wait()
	for _, b := range r.book.broken {
		t.Error(b)
	}
}

// tell logs how far the race has come, every twentieth of it.
func (r *Race) tell(t testing.TB, left int64) {
	if every := int64(max(r.Pairs/20, 1)); left%every != 0 {
		return
	}
	r.book.mu.Lock()
	held, broken := len(r.book.owner), len(r.book.broken)
	r.book.mu.Unlock()
	t.Logf("%d of %d pairs begun after %s: %d addresses held, %d with two owners", int64(r.Pairs)-left, r.Pairs, time.Since(r.begun).Round(time.Second), held, broken)
}

// live runs lives of one node's allocator, one after the other, until the work
// is done. What a life leaves unfinished the next one releases, as a kubelet
// does.
func (r *Race) live(t testing.TB, name model.NodeName) {
	var unfinished []string
	for life := 0; ; life++ {
		conn := r.Connect()
		a := alloc.New(name, conn)
		a.SetPools([]model.Pool{r.Pool})
		ctx, cancel := context.WithCancel(context.Background())
		var run sync.WaitGroup
		run.Go(func() {
			if err := a.Run(ctx); err != nil {
				t.Errorf("%s: run: %v", name, err)
			}
		})
		n := &raceNode{race: r, t: t, name: name, a: a, conn: conn}
		unfinished = n.work(unfinished, life)
		cancel()
		run.Wait()
		if !conn.Crashed() && len(unfinished) == 0 {
			return
		}
	}
}

// raceNode is one life of a node.
type raceNode struct {
	race *Race
	t    testing.TB
	name model.NodeName
	a    *alloc.Allocator
	conn Conn
}

// work makes pairs with some concurrency until none is left or the client
// crashes. It returns the handles that are not known to be released.
func (n *raceNode) work(unfinished []string, life int) []string {
	var mu sync.Mutex
	var next []string
	for _, h := range unfinished {
		if !n.released(h) {
			next = append(next, h)
		}
	}
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for i := 0; !n.conn.Crashed(); i++ {
				left := n.race.left.Add(-1)
				if left < 0 {
					return
				}
				n.race.tell(n.t, left)
				if n.race.Meanwhile != nil && left < int64(n.race.Pairs/2) {
					n.race.half.Do(n.race.Meanwhile)
				}
				h := fmt.Sprintf("k8s-pod-network.%s-%d-%d-%d", n.name, life, worker, i)
				if !n.pair(h) {
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
func (n *raceNode) pair(h string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	addrs, err := n.a.Assign(ctx, alloc.Request{Handle: h, V4: 1 + rand.N(2)})
	switch code := ipam.CodeOf(err); code {
	case "", ipam.CodePoolExhausted, ipam.CodeUnavailable:
	default:
		n.t.Errorf("assign %s: %v", h, err)
	}
	for _, addr := range addrs {
		n.race.book.take(addr, h)
	}
	if err == nil && rand.N(3) > 0 {
		time.Sleep(rand.N(2 * time.Millisecond))
	}
	for _, addr := range addrs {
		n.race.book.give(addr, h)
	}
	return n.released(h)
}

func (n *raceNode) released(h string) bool {
	for try := range 50 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := n.a.Release(ctx, h)
		cancel()
		if err == nil {
			return true
		}
		if n.conn.Crashed() {
			return false
		}
		time.Sleep(time.Duration(try) * 2 * time.Millisecond)
	}
	n.t.Errorf("release of %s never went through", h)
	return true
}
