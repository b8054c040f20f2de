package route

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// lab is a node with an uplink to a namespace that plays the rest of the rack.
type lab struct {
	node  *nstest.NS
	links map[string]int
}

func newLab(t *testing.T) *lab {
	node, rack := nstest.New(t), nstest.New(t)
	node.Veth("eth0", rack, "sw0", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	node.Veth("eth1", rack, "sw1", []string{"10.2.0.1/24", "fd02::1/64"}, []string{"10.2.0.254/24", "fd02::254/64"})
	l := &lab{node: node, links: map[string]int{}}
	for _, name := range []string{"lo", "eth0", "eth1"} {
		l.links[name] = node.Index(name)
	}
	return l
}

func (l *lab) hop(gateway, dev string) felix.NextHop {
	h := felix.NextHop{Link: l.links[dev], Device: dev}
	if gateway != "" {
		h.Gateway = netip.MustParseAddr(gateway)
	}
	return h
}

func unicast(prefix string, hops ...felix.NextHop) felix.Route {
	return felix.Route{Prefix: netip.MustParsePrefix(prefix), Metric: felix.DefaultRouteMetric, NextHopGroup: &felix.NextHopGroup{NextHops: hops}}
}

func blackhole(prefix string) felix.Route {
	return felix.Route{Prefix: netip.MustParsePrefix(prefix), Metric: felix.DefaultRouteMetric, NextHopGroup: &felix.NextHopGroup{Type: felix.Blackhole}}
}

func state(prune bool, routes ...felix.Route) felix.State {
	slices.SortFunc(routes, felix.Route.Compare)
	return felix.State{Routes: routes, Prune: prune}
}

func open(t *testing.T, l *lab) *Reconciler {
	t.Helper()
	r, err := New(Options{NetNS: l.node.Path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func apply(t *testing.T, r *Reconciler, s felix.State) {
	t.Helper()
	if err := r.Apply(context.Background(), s); err != nil {
		t.Fatal(err)
	}
}

// ours lists the kernel's routes with our protocol in its own words.
func (l *lab) ours() []string {
	var out []string
	for _, fam := range []string{"-4", "-6"} {
		text := l.node.IP("-d " + fam + " route show proto 109")
		text = strings.ReplaceAll(text, "\n\t", " ")
		for _, line := range strings.Split(text, "\n") {
			if line = strings.Join(strings.Fields(line), " "); line != "" {
				out = append(out, line)
			}
		}
	}
	return out
}

func wantOurs(t *testing.T, l *lab, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, l.ours()); diff != "" {
		t.Fatalf("routes in the kernel (-want +got):\n%s", diff)
	}
}

func TestApplyWritesEveryKindOfRoute(t *testing.T) {
	l := newLab(t)
	r := open(t, l)
	onlink := l.hop("10.9.9.9", "eth0")
	onlink.OnLink = true
	pod := unicast("10.65.0.5/32", l.hop("", "eth1"))
	pod.LinkScope = true
	src := unicast("10.65.3.0/26", l.hop("10.1.0.254", "eth0"))
	src.Source = netip.MustParseAddr("10.2.0.1")
	src6 := unicast("fd65:3::/122", l.hop("fd01::254", "eth0"), l.hop("fd02::254", "eth1"))
	src6.Source = netip.MustParseAddr("fd02::1")
	apply(t, r, state(true,
		blackhole("10.65.0.0/26"), pod,
		unicast("10.65.1.0/26", l.hop("10.1.0.254", "eth0")),
		unicast("10.65.2.0/26", l.hop("10.1.0.254", "eth0"), l.hop("10.2.0.254", "eth1")),
		src,
		unicast("10.65.4.0/26", onlink),
		unicast("10.65.5.0/26", l.hop("fd01::254", "eth0")),
		blackhole("fd65::/122"),
		unicast("fd65::5/128", l.hop("", "eth1")),
		unicast("fd65:1::/122", l.hop("fd01::254", "eth0")),
		unicast("fd65:2::/122", l.hop("fd01::254", "eth0"), l.hop("fd02::254", "eth1")),
		src6,
	))
	wantOurs(t, l,
		"blackhole 10.65.0.0/26 scope global metric 1024",
		"unicast 10.65.0.5 dev eth1 scope link metric 1024",
		"unicast 10.65.1.0/26 via 10.1.0.254 dev eth0 scope global metric 1024",
		"unicast 10.65.2.0/26 scope global metric 1024 nexthop via 10.1.0.254 dev eth0 weight 1 nexthop via 10.2.0.254 dev eth1 weight 1",
		"unicast 10.65.3.0/26 via 10.1.0.254 dev eth0 scope global src 10.2.0.1 metric 1024",
		"unicast 10.65.4.0/26 via 10.9.9.9 dev eth0 scope global metric 1024 onlink",
		"unicast 10.65.5.0/26 via inet6 fd01::254 dev eth0 scope global metric 1024",
		"unicast fd65::5 dev eth1 scope global metric 1024 pref medium",
		"blackhole fd65::/122 dev lo scope global metric 1024 pref medium",
		"unicast fd65:1::/122 via fd01::254 dev eth0 scope global metric 1024 pref medium",
		"unicast fd65:2::/122 scope global metric 1024 pref medium nexthop via fd01::254 dev eth0 weight 1 nexthop via fd02::254 dev eth1 weight 1",
		"unicast fd65:3::/122 scope global src fd02::1 metric 1024 pref medium nexthop via fd01::254 dev eth0 weight 1 nexthop via fd02::254 dev eth1 weight 1",
	)
	fresh := open(t, l)
	apply(t, fresh, state(true, src, src6))
	if s := fresh.Stats(); s.Changed != 0 || s.Added != 0 {
		t.Errorf("routes with a source are not taken for what they are: %+v", s)
	}
}

// run has the reconciler listen until the test ends.
func run(t *testing.T, r *Reconciler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// keep applies s whenever the reconciler hints, as the agent does.
func keep(t *testing.T, r *Reconciler, s func() felix.State) {
	t.Helper()
	run(t, r)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.Changed():
				_ = r.Apply(ctx, s()) // a link that is down refuses: the next hint comes
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// foreign are routes of others that no test may see changed.
var foreign = []string{
	"10.80.0.0/24 via 10.1.0.254 proto bird",
	"10.65.1.0/26 via 10.1.0.254 proto static metric 5",
	"blackhole 10.82.0.0/24",
	"10.65.2.0/26 via 10.1.0.254 table 200 proto 109",
}

func (l *lab) addForeign() {
	for _, f := range foreign {
		l.node.IP("route add " + f)
	}
}

func (l *lab) others() string {
	text := l.node.IP("-d route show table all") + l.node.IP("-d -6 route show table all")
	text = strings.ReplaceAll(text, "\n\t", " ")
	var out []string
	for _, line := range strings.Split(text, "\n") {
		// The kernel's own come with the carrier, when they like.
		if strings.Contains(line, "table local") || strings.Contains(line, "fe80::") {
			continue
		}
		if !strings.Contains(line, "proto 109") || strings.Contains(line, "table 200") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

func many(l *lab, n int) []felix.Route {
	groups := []*felix.NextHopGroup{{NextHops: []felix.NextHop{l.hop("10.1.0.254", "eth0")}}, {NextHops: []felix.NextHop{l.hop("10.2.0.254", "eth1")}}}
	out := make([]felix.Route, n)
	for i := range out {
		a := netip.AddrFrom4([4]byte{100, byte(64 + i>>14), byte(i >> 6), byte(i << 2)})
		out[i] = felix.Route{Prefix: netip.PrefixFrom(a, 30), Metric: felix.DefaultRouteMetric, NextHopGroup: groups[i%2]}
	}
	return out
}

func TestAdoptionTouchesNothing(t *testing.T) {
	l := newLab(t)
	l.addForeign()
	s := state(true, append(many(l, 200), blackhole("10.65.0.0/26"), blackhole("fd65::/122"),
		unicast("10.65.2.0/26", l.hop("10.1.0.254", "eth0"), l.hop("10.2.0.254", "eth1")),
		unicast("10.65.5.0/26", l.hop("fd01::254", "eth0")),
		unicast("fd65:2::/122", l.hop("fd01::254", "eth0"), l.hop("fd02::254", "eth1")))...)
	apply(t, open(t, l), s)
	l.node.IP("route add 10.65.9.0/26 via 10.1.0.254 proto 109 metric 1024") // left over
	before := l.others()

	fresh := open(t, l)
	m := l.node.MonitorRoutes()
	notYet := s
	notYet.Prune = false
	apply(t, fresh, notYet)
	if lines := m.Lines(); len(lines) != 0 {
		t.Errorf("a fresh process touched what is as wanted: %q", lines)
	}
	apply(t, fresh, s)
	if lines := m.Lines(); len(lines) != 1 || !strings.HasPrefix(lines[0], "Deleted 10.65.9.0/26") {
		t.Errorf("want the left-over route deleted and nothing else, got %q", lines)
	}
	if diff := cmp.Diff(before, l.others()); diff != "" {
		t.Errorf("routes of others changed:\n%s", diff)
	}
}

func TestChangeIsOneMessage(t *testing.T) {
	l := newLab(t)
	r := open(t, l)
	run(t, r)
	routes := many(l, 500)
	apply(t, r, state(true, routes...))
	m := l.node.MonitorRoutes()
	changed := slices.Clone(routes)
	changed[100].NextHopGroup = &felix.NextHopGroup{NextHops: []felix.NextHop{l.hop("10.2.0.254", "eth1"), l.hop("10.1.0.254", "eth0")}}
	slices.SortFunc(changed[100].NextHops, felix.NextHop.Compare)
	apply(t, r, state(true, changed...))
	lines := m.Lines()
	if len(lines) != 1 || strings.HasPrefix(lines[0], "Deleted") || !strings.Contains(lines[0], changed[100].Prefix.String()) {
		t.Errorf("a changed route: %q", lines)
	}
	if s := r.Stats(); s.Dumps != 1 || s.Changed != 1 || s.Drift != 0 {
		t.Errorf("stats: %+v", s)
	}
	apply(t, r, state(true, routes[:499]...))
	if got := len(l.ours()); got != 499 {
		t.Errorf("%d routes, want 499", got)
	}
}

func TestTypeChanges(t *testing.T) {
	l := newLab(t)
	r := open(t, l)
	for _, p := range []struct{ prefix, gw0, gw1 string }{
		{"10.65.0.0/26", "10.1.0.254", "10.2.0.254"}, {"fd65::/122", "fd01::254", "fd02::254"},
	} {
		one := unicast(p.prefix, l.hop(p.gw0, "eth0"))
		two := unicast(p.prefix, l.hop(p.gw0, "eth0"), l.hop(p.gw1, "eth1"))
		other := unicast(p.prefix, l.hop(p.gw1, "eth1"))
		hole := blackhole(p.prefix)
		unreachable := hole
		unreachable.NextHopGroup = &felix.NextHopGroup{Type: felix.Unreachable}
		for _, next := range []felix.Route{one, two, one, hole, two, hole, other, unreachable, hole, two, other} {
			apply(t, r, state(true, next))
			got, err := dump(r.conn)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || keyOf(got[0]) != keyOf(next) || !same(got[0], next) {
				t.Fatalf("want %s, the kernel has %v", next, got)
			}
		}
		apply(t, r, state(true))
	}
}

func TestDriftIsRepaired(t *testing.T) {
	l := newLab(t)
	l.addForeign()
	before := l.others()
	routes := append(many(l, 100), blackhole("10.65.0.0/26"),
		unicast("10.65.3.0/26", l.hop("10.1.0.254", "eth0"), l.hop("10.2.0.254", "eth1")),
		unicast("fd65:1::/122", l.hop("fd01::254", "eth0")),
		unicast("fd65:2::/122", l.hop("fd01::254", "eth0"), l.hop("fd02::254", "eth1")))
	r := open(t, l)
	s := state(true, routes...)
	keep(t, r, func() felix.State { return s })
	apply(t, r, s)
	want := l.ours()

	for _, spoil := range []string{
		"route del 100.64.0.0/30 proto 109",
		"route replace 100.64.0.4/30 via 10.1.0.254 proto 109 metric 1024",
		"route replace blackhole 100.64.0.4/30 proto static metric 1024",
		"route replace 10.65.0.0/26 via 10.2.0.254 proto static metric 1024",
		"route replace 10.65.3.0/26 via 10.2.0.254 proto 109 metric 1024",
		"route add 10.65.77.0/26 via 10.2.0.254 proto 109",
		"-6 route del fd65:1::/122",
		"-6 route del fd65:2::/122 via fd01::254",
		"-6 route replace fd65:1::/122 via fd02::254 proto static metric 1024",
		"-6 route replace blackhole fd65:2::/122 proto 109 metric 1024",
		"route flush proto 109",
		"-6 route flush proto 109",
	} {
		l.node.IP(spoil)
		nstest.Eventually(t, spoil+" is repaired", func() bool { return slices.Equal(want, l.ours()) })
	}
	l.node.IP("link set eth1 down")
	l.node.IP("link set eth1 up")
	l.node.IP("-6 addr add fd02::1/64 dev eth1 nodad")
	apply(t, r, s) // what the agent does when felix/link hints
	nstest.Eventually(t, "a link that bounced is repaired", func() bool { return slices.Equal(want, l.ours()) })
	l.node.IP("addr del 10.2.0.1/24 dev eth1")
	l.node.IP("addr add 10.2.0.1/24 dev eth1")
	nstest.Eventually(t, "an address that bounced is repaired", func() bool {
		_ = r.Apply(context.Background(), s)
		return slices.Equal(want, l.ours())
	})
	if diff := cmp.Diff(before, l.others()); diff != "" {
		t.Errorf("routes of others changed:\n%s", diff)
	}
	if s := r.Stats(); s.Drift == 0 {
		t.Errorf("no drift counted: %+v", s)
	}
}

// TestRefreshReadsAgain has a reconciler that was told of a short interval find
// what it was not notified of.
func TestRefreshReadsAgain(t *testing.T) {
	l := newLab(t)
	r, err := New(Options{NetNS: l.node.Path, Resync: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	s := state(true, unicast("10.65.1.0/26", l.hop("10.1.0.254", "eth0")))
	s.Refresh = 10 * time.Millisecond
	apply(t, r, s)
	keep(t, r, func() felix.State { return s })
	nstest.Eventually(t, "the table is read again and again", func() bool { return r.Stats().Dumps > 3 })
	if s := r.Stats(); s.Added != 1 || s.Changed+s.Deleted+s.Drift != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestForeignRouteInOurPlaceStays(t *testing.T) {
	l := newLab(t)
	l.node.IP("route add 10.65.1.0/26 via 10.2.0.254 proto static metric 1024")
	l.node.IP("-6 route add fd65:1::/122 via fd02::254 proto static metric 1024")
	before := l.others()
	r := open(t, l)
	err := r.Apply(context.Background(), state(true,
		unicast("10.65.1.0/26", l.hop("10.1.0.254", "eth0")),
		unicast("10.65.2.0/26", l.hop("10.1.0.254", "eth0")),
		unicast("fd65:1::/122", l.hop("fd01::254", "eth0"))))
	for _, w := range []string{"add route 10.65.1.0/26 via 10.1.0.254 dev eth0", "add route fd65:1::/122", "somebody else has a route"} {
		if err == nil || !strings.Contains(err.Error(), w) {
			t.Errorf("error %v lacks %q", err, w)
		}
	}
	if diff := cmp.Diff(before, l.others()); diff != "" {
		t.Errorf("routes of others changed:\n%s", diff)
	}
	if got := l.ours(); len(got) != 1 || !strings.Contains(got[0], "10.65.2.0/26") {
		t.Errorf("the rest did not go on: %q", got)
	}
}

func TestRefusedRouteDoesNotStopOthers(t *testing.T) {
	l := newLab(t)
	routes := many(l, 2500)
	routes[1300].NextHopGroup = &felix.NextHopGroup{NextHops: []felix.NextHop{l.hop("10.77.0.1", "eth0")}} // not on the link
	r := open(t, l)
	err := r.Apply(context.Background(), state(true, routes...))
	if err == nil || !strings.Contains(err.Error(), routes[1300].Prefix.String()+" via 10.77.0.1 dev eth0") {
		t.Errorf("error: %v", err)
	}
	if got := len(l.ours()); got != 2499 {
		t.Errorf("%d routes in the kernel, want 2499", got)
	}
	if s := r.Stats(); s.Installed != 2499 || s.Failed != 1 {
		t.Errorf("stats: %+v", s)
	}
	routes[1300] = many(l, 1301)[1300]
	apply(t, r, state(true, routes...))
	if got := len(l.ours()); got != 2500 {
		t.Errorf("%d routes in the kernel, want 2500", got)
	}
}

func TestInterruptedDumpIsRepeated(t *testing.T) {
	l := newLab(t)
	routes := many(l, 20000)
	apply(t, open(t, l), state(true, routes...))
	fresh := open(t, l)
	// Somebody keeps changing the table while it is read.
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_, _ = l.node.Try("ip", "route", "replace", "10.99.0.0/24", "via", "10.1.0.254")
			_, _ = l.node.Try("ip", "route", "del", "10.99.0.0/24")
		}
	}()
	for range 5 {
		fresh.markStale()
		apply(t, fresh, state(true, routes...))
	}
	cancel()
	<-done
	if s := fresh.Stats(); s.Added+s.Changed+s.Deleted != 0 {
		t.Errorf("a dump under change was taken for drift: %+v", s)
	}
}

func TestTenThousandRoutes(t *testing.T) {
	l := newLab(t)
	routes := many(l, 10000)
	r := open(t, l)
	run(t, r)
	apply(t, r, state(true, routes...))
	if got := strings.Count(l.node.IP("route show proto 109"), "\n"); got != 10000 {
		t.Fatalf("%d routes in the kernel, want 10000", got)
	}
	for range 3 {
		apply(t, r, state(true, routes...))
	}
	if s := r.Stats(); s.Added != 10000 || s.Changed+s.Deleted+s.Failed+s.Drift != 0 || s.Dumps != 1 {
		t.Errorf("stats: %+v", s)
	}
	apply(t, r, state(false))
	if s := r.Stats(); s.Deleted != 0 {
		t.Errorf("deleted before every source was heard: %+v", s)
	}
	apply(t, r, state(true))
	if got := l.ours(); len(got) != 0 {
		t.Errorf("%d routes left", len(got))
	}
}
