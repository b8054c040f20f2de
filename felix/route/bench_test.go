package route

import (
	"context"
	"net/netip"
	"slices"
	"sort"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// benchRoutes are n /26 prefixes by way of 100 next hops on eth0.
func benchRoutes(b *testing.B, n int) (*nstest.NS, []felix.Route) {
	node := nstest.New(b)
	node.Veth("eth0", nstest.New(b), "sw", []string{"10.1.0.1/16"}, []string{"10.1.255.254/16"})
	index := node.Index("eth0")
	groups := make([]*felix.NextHopGroup, 100)
	for i := range groups {
		groups[i] = &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: netip.AddrFrom4([4]byte{10, 1, 1, byte(i + 1)}), Link: index, Device: "eth0"}}}
	}
	out := make([]felix.Route, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte{100, byte(64 + i>>10), byte(i >> 2), byte(i << 6)})
		out[i] = felix.Route{Prefix: netip.PrefixFrom(a, 26), Metric: felix.DefaultRouteMetric, NextHopGroup: groups[i%100]}
	}
	slices.SortFunc(out, felix.Route.Compare)
	return node, out
}

func benchOpen(b *testing.B, node *nstest.NS) *Reconciler {
	r, err := New(Options{NetNS: node.Path})
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// floor writes routes with nothing but encoding and batched netlink, 1,000 a
// send, in the cheap order.
func floor(b *testing.B, c *nl.Conn, routes []felix.Route) {
	ops := make([]op, len(routes))
	for i := range routes {
		ops[i] = op{verb: add, route: &routes[i]}
	}
	ops = stride(ops)
	var batch nl.Batch
	for len(ops) > 0 {
		n := min(writeCount, len(ops))
		batch.Reset()
		for _, o := range ops[:n] {
			o.encode(&batch)
		}
		ops = ops[n:]
		if err := c.Do(&batch, func(_ int, err error) { b.Error(err) }); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFromEmpty applies 10,000 routes to an empty table and, in turns with
// it, writes them with raw netlink. It reports both medians and their ratio.
func BenchmarkFromEmpty(b *testing.B) {
	node, routes := benchRoutes(b, 10000)
	ns, err := nl.Open(node.Path)
	if err != nil {
		b.Fatal(err)
	}
	conn, err := nl.Dial(ns, unix.NETLINK_ROUTE)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(); ns.Close() })
	var ours, raw []time.Duration
	for b.Loop() {
		start := time.Now()
		floor(b, conn, routes)
		raw = append(raw, time.Since(start))
		node.IP("route flush proto 109")

		r := benchOpen(b, node)
		start = time.Now()
		if err := r.Apply(context.Background(), felix.State{Routes: routes, Prune: true}); err != nil {
			b.Fatal(err)
		}
		ours = append(ours, time.Since(start))
		r.Close()
		node.IP("route flush proto 109")
	}
	b.ReportMetric(ms(median(ours)), "ms/ours")
	b.ReportMetric(ms(median(raw)), "ms/floor")
	b.ReportMetric(ms(median(ours))/ms(median(raw)), "ratio")
}

// BenchmarkOneOfMany changes one route with 50,000 in place, from the State to
// the kernel.
func BenchmarkOneOfMany(b *testing.B) {
	node, routes := benchRoutes(b, 50000)
	r := benchOpen(b, node)
	apply := func(s felix.State) {
		if err := r.Apply(context.Background(), s); err != nil {
			b.Fatal(err)
		}
	}
	apply(felix.State{Routes: routes, Prune: true})
	other := slices.Clone(routes)
	other[25000].NextHopGroup = routes[25001].NextHopGroup
	states := []felix.State{{Routes: other, Prune: true}, {Routes: routes, Prune: true}}
	var took []time.Duration
	i := 0
	for b.Loop() {
		start := time.Now()
		apply(states[i%2])
		took = append(took, time.Since(start))
		i++
	}
	sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
	b.ReportMetric(ms(took[len(took)/2]), "ms/p50")
	b.ReportMetric(ms(took[len(took)*99/100]), "ms/p99")
	if s := r.Stats(); s.Changed != i || s.Dumps != 1 {
		b.Errorf("%d rounds: %+v", i, s)
	}
}

// BenchmarkAdoption reads 10,000 routes that are as wanted, as a new process.
func BenchmarkAdoption(b *testing.B) {
	node, routes := benchRoutes(b, 10000)
	if err := benchOpen(b, node).Apply(context.Background(), felix.State{Routes: routes, Prune: true}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		r := benchOpen(b, node)
		if err := r.Apply(context.Background(), felix.State{Routes: routes, Prune: true}); err != nil {
			b.Fatal(err)
		}
		if s := r.Stats(); s.Added+s.Changed+s.Deleted != 0 {
			b.Fatalf("%+v", s)
		}
		r.Close()
	}
}

func median(d []time.Duration) time.Duration {
	d = slices.Clone(d)
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
