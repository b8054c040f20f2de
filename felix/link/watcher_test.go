package link

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/pkg/model"
)

var addrs = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

// start runs a watcher until the test ends.
func start(t *testing.T, ns *nstest.NS) *Watcher {
	t.Helper()
	w, err := New(Options{NetNS: ns.Path})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		w.Close()
	})
	select {
	case <-w.Ready():
	case err := <-done:
		t.Fatal(err)
	}
	return w
}

// until waits for a Host that fits, woken by hints alone.
func until(t *testing.T, w *Watcher, what string, ok func(model.Host) bool) {
	t.Helper()
	nstest.Eventually(t, what, func() bool {
		if ok(w.Host()) {
			return true
		}
		select {
		case <-w.Changed():
		default:
		}
		return ok(w.Host())
	})
}

func find(h model.Host, name string) model.Link {
	i := slices.IndexFunc(h.Links, func(l model.Link) bool { return l.Name == name })
	if i < 0 {
		return model.Link{}
	}
	return h.Links[i]
}

func routes(h model.Host, prefix string) []model.HostRoute {
	var out []model.HostRoute
	for _, r := range h.Routes {
		if r.Prefix == netip.MustParsePrefix(prefix) {
			out = append(out, r)
		}
	}
	return out
}

func newNode(t *testing.T) *nstest.NS {
	node, rack := nstest.New(t), nstest.New(t)
	node.Veth("eth0", rack, "sw0", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	node.Veth("eth1", rack, "sw1", []string{"10.2.0.1/24"}, []string{"10.2.0.254/24"})
	return node
}

func TestHostAtStart(t *testing.T) {
	node := newNode(t)
	node.IP("link set eth0 alias uplink mtu 1400 address 02:00:00:00:00:01")
	node.IP("route add default via 10.1.0.254 metric 100")
	node.IP("route add 10.9.0.0/16 nexthop via 10.1.0.254 nexthop via 10.2.0.254")
	node.IP("-6 route add default via fd01::254")
	node.IP("route add 10.65.1.0/26 via 10.1.0.254 proto 109")
	node.IP("route add blackhole 10.66.0.0/16")
	node.IP("route add 10.67.0.0/16 via 10.1.0.254 table 100")
	h := start(t, node).Host()

	eth0, eth1 := find(h, "eth0"), find(h, "eth1")
	got := eth0
	got.Addresses = slices.DeleteFunc(slices.Clone(got.Addresses), func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	want := model.Link{
		Index: eth0.Index, Name: "eth0", Kind: "veth", Alias: "uplink", Up: true, AdminUp: true, MTU: 1400,
		MAC:       "02:00:00:00:00:01",
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd01::1/64")},
	}
	if diff := cmp.Diff(want, got, addrs); diff != "" {
		t.Errorf("eth0 (-want +got):\n%s", diff)
	}
	gw4, gw4b, gw6 := netip.MustParseAddr("10.1.0.254"), netip.MustParseAddr("10.2.0.254"), netip.MustParseAddr("fd01::254")
	wantRoutes := []model.HostRoute{
		{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Gateways: []netip.Addr{gw4}, LinkIndex: eth0.Index, Protocol: 3, Metric: 100},
		{Prefix: netip.MustParsePrefix("10.1.0.0/24"), LinkIndex: eth0.Index, Protocol: 2},
		{Prefix: netip.MustParsePrefix("10.2.0.0/24"), LinkIndex: eth1.Index, Protocol: 2},
		{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateways: []netip.Addr{gw4}, LinkIndex: eth0.Index, Protocol: 3},
		{Prefix: netip.MustParsePrefix("10.9.0.0/16"), Gateways: []netip.Addr{gw4b}, LinkIndex: eth1.Index, Protocol: 3},
		{Prefix: netip.MustParsePrefix("::/0"), Gateways: []netip.Addr{gw6}, LinkIndex: eth0.Index, Protocol: 3, Metric: 1024},
		{Prefix: netip.MustParsePrefix("fd01::/64"), LinkIndex: eth0.Index, Protocol: 2, Metric: 256},
	}
	sortHosts := func(in []model.HostRoute) []model.HostRoute {
		out := slices.Clone(in)
		slices.SortStableFunc(out, func(a, b model.HostRoute) int { return strings.Compare(a.Prefix.String(), b.Prefix.String()) })
		return out
	}
	if diff := cmp.Diff(sortHosts(wantRoutes), sortHosts(h.Routes), addrs); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestHostFollowsTheKernel(t *testing.T) {
	node := newNode(t)
	node.IP("route add 10.8.0.0/16 via 10.1.0.254")
	w := start(t, node)

	node.IP("link set eth0 mtu 1300")
	until(t, w, "the MTU changes", func(h model.Host) bool { return find(h, "eth0").MTU == 1300 })
	node.IP("addr add 10.3.0.1/24 dev eth0")
	until(t, w, "an address and its connected route come", func(h model.Host) bool {
		return slices.Contains(find(h, "eth0").Addresses, netip.MustParsePrefix("10.3.0.1/24")) && len(routes(h, "10.3.0.0/24")) == 1
	})
	node.IP("addr del 10.3.0.1/24 dev eth0")
	until(t, w, "they go", func(h model.Host) bool {
		return !slices.Contains(find(h, "eth0").Addresses, netip.MustParsePrefix("10.3.0.1/24")) && len(routes(h, "10.3.0.0/24")) == 0
	})
	node.IP("route add 10.7.0.0/16 via 10.1.0.254")
	until(t, w, "a static route comes", func(h model.Host) bool { return len(routes(h, "10.7.0.0/16")) == 1 })

	// The kernel takes the routes away with the link and does not say so.
	node.IP("link set eth0 down")
	until(t, w, "the routes over a link that went down are gone", func(h model.Host) bool {
		return !find(h, "eth0").AdminUp && len(routes(h, "10.7.0.0/16")) == 0 && len(routes(h, "10.1.0.0/24")) == 0
	})
	node.IP("link set eth0 up")
	until(t, w, "the connected route is back", func(h model.Host) bool {
		return find(h, "eth0").Up && len(routes(h, "10.1.0.0/24")) == 1 && len(routes(h, "10.7.0.0/16")) == 0
	})
	node.IP("link add cali0 type veth peer name x0")
	until(t, w, "a link comes", func(h model.Host) bool { return find(h, "cali0").Index != 0 && !find(h, "cali0").AdminUp })
	node.IP("link del cali0")
	until(t, w, "a link goes", func(h model.Host) bool { return find(h, "cali0").Index == 0 && find(h, "x0").Index == 0 })
}

func TestOwnRoutesGiveNoHint(t *testing.T) {
	node := newNode(t)
	w := start(t, node)
	until(t, w, "the links are up", func(h model.Host) bool { return find(h, "eth0").Up && find(h, "eth1").Up })
	before := w.Host()
	node.IP("route add 10.65.1.0/26 via 10.1.0.254 proto 109")
	node.IP("route del 10.65.1.0/26 via 10.1.0.254 proto 109")
	// A foreign route after them tells that they have been passed over.
	node.IP("route add 10.7.0.0/16 via 10.1.0.254")
	until(t, w, "the foreign route comes", func(h model.Host) bool { return len(routes(h, "10.7.0.0/16")) == 1 })
	after := w.Host()
	if len(after.Routes) != len(before.Routes)+1 {
		t.Errorf("routes before %v, after %v", before.Routes, after.Routes)
	}
}

func TestHostHasWhatWasThereBefore(t *testing.T) {
	node := newNode(t)
	w := start(t, node)
	for range 20 {
		node.IP("link add cali0 up type veth peer name x0")
		if !find(w.Host(), "cali0").AdminUp {
			t.Fatal("the link was made before Host was asked, and is not in it")
		}
		node.IP("link del cali0")
		if find(w.Host(), "cali0").Index != 0 {
			t.Fatal("the link was deleted before Host was asked, and is in it")
		}
	}
}
