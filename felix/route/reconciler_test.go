package route

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

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
		index, _, _ := strings.Cut(node.IP("-o link show dev "+name), ":")
		var err error
		if l.links[name], err = strconv.Atoi(index); err != nil {
			t.Fatal(err)
		}
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
	return felix.Route{Prefix: netip.MustParsePrefix(prefix), Metric: felix.DefaultRouteMetric, NextHops: hops}
}

func blackhole(prefix string) felix.Route {
	return felix.Route{Prefix: netip.MustParsePrefix(prefix), Type: felix.Blackhole, Metric: felix.DefaultRouteMetric}
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
	)
}
