package cleanup

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/nft"
	"github.com/muslin-net/muslin/felix/pod"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/felix/tunnel"
	"github.com/muslin-net/muslin/pkg/model"
)

// show is everything of a namespace that Muslin may leave something in.
func show(n *nstest.NS) string {
	var b strings.Builder
	for _, words := range []string{
		"ip -o link", "ip -o -4 addr", "ip -o -6 addr show scope global", "ip -4 route show table all", "ip -6 route show table main",
		"ip -4 rule", "ip -6 rule", "ip neigh show nud permanent", "nft list ruleset",
	} {
		f := strings.Fields(words)
		b.WriteString("# " + words + "\n" + n.Run(f[0], f[1:]...))
	}
	return b.String()
}

// state is one of everything that Muslin writes.
func state(n *nstest.NS, pods ...string) felix.State {
	eth0 := n.Index("eth0")
	s := felix.State{
		Prune: true,
		Routes: []felix.Route{
			{Prefix: netip.MustParsePrefix("10.65.0.0/26"), Metric: felix.DefaultRouteMetric, NextHopGroup: &felix.NextHopGroup{Type: felix.Blackhole}},
			{Prefix: netip.MustParsePrefix("10.65.1.0/26"), Metric: felix.DefaultRouteMetric,
				NextHopGroup: &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: netip.MustParseAddr("10.1.0.254"), Link: eth0}}}},
			{Prefix: netip.MustParsePrefix("fd65::/122"), Metric: felix.DefaultRouteMetric, NextHopGroup: &felix.NextHopGroup{Type: felix.Blackhole}},
		},
		Tunnels: []felix.Tunnel{{
			Kind: felix.VXLAN, Name: felix.VXLANDevice, Address: netip.MustParseAddr("10.65.0.1"), Local: netip.MustParseAddr("10.1.0.1"),
			Parent: eth0, MTU: 1450, MAC: "66:00:00:00:00:01", VNI: 4096, Port: 4789,
			Peers: []felix.TunnelPeer{{Address: netip.MustParseAddr("10.65.1.1"), MAC: "66:00:00:00:00:02", Node: netip.MustParseAddr("10.1.0.2")}},
		}},
		Rules: felix.Ruleset{
			Complete:    true,
			NAT:         felix.NAT{Sources: []netip.Prefix{netip.MustParsePrefix("10.65.0.0/16")}, Exclude: []netip.Prefix{netip.MustParsePrefix("10.65.0.0/16")}},
			SourceCheck: felix.SourceCheck{Prefix: felix.DefaultInterfacePrefix},
			Tunnels:     felix.TunnelGuard{VXLANPorts: []int{4789}, Nodes: []netip.Addr{netip.MustParseAddr("10.1.0.1")}},
		},
	}
	for _, p := range pods {
		s.Routes = append(s.Routes, felix.Route{
			Prefix: netip.MustParsePrefix("10.65.0.5/32"), Metric: felix.DefaultRouteMetric,
			NextHopGroup: &felix.NextHopGroup{LinkScope: true, NextHops: []felix.NextHop{{Link: n.Index(p)}}},
		})
	}
	slices.SortFunc(s.Routes, felix.Route.Compare)
	return s
}

func write(t *testing.T, n *nstest.NS, s felix.State) {
	t.Helper()
	tunnels, err := tunnel.New(tunnel.Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer tunnels.Close()
	rules, err := nft.New(nft.Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer rules.Close()
	routes, err := route.New(route.Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer routes.Close()
	closing, err := policynft.New(policynft.Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer closing.Close()
	closed := policy.Program{Complete: true, Chains: model.SortedOf([]policy.Chain{{ID: "i-0", Rules: []policy.Rule{{Verdict: policy.Deny}}}})}
	if err := closing.Apply(t.Context(), closed, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{tunnels.Apply(t.Context(), s), rules.Apply(t.Context(), s), routes.Apply(t.Context(), s)} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func attach(t *testing.T, n, inside *nstest.NS) string {
	t.Helper()
	plugger, err := pod.New(pod.Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	defer plugger.Close()
	e, err := plugger.Attach(t.Context(), pod.Spec{
		ContainerID: strings.Repeat("1", 64), Interface: "eth0", NetNS: inside.Path, Namespace: "default", Pod: "pod",
		HostInterface: pod.HostInterface("default", "pod"), Addresses: []netip.Addr{netip.MustParseAddr("10.65.0.5")},
	})
	if err != nil {
		t.Fatal(err)
	}
	return e.HostInterface
}

// newNode is a node with an uplink and with things that look like ours and are
// somebody else's.
func newNode(t *testing.T) *nstest.NS {
	n := nstest.New(t)
	n.Veth("eth0", nstest.New(t), "sw", []string{"10.1.0.1/24", "fd01::1/64"}, []string{"10.1.0.254/24", "fd01::254/64"})
	n.IP("link add calivm type veth peer name calivm-peer")
	n.IP("link add vxlan.other type vxlan id 4096 dev eth0 dstport 4790")
	n.IP("route add 10.66.0.0/26 via 10.1.0.254 proto bird")
	n.IP("route add blackhole 10.65.0.0/26 proto static metric 2000")
	n.IP("route add 10.65.7.0/26 via 10.1.0.254 proto 109 table 100")
	n.Run("nft", "add table ip muslin; add table inet muslin-other")
	return n
}

func TestNothingOfOursRemains(t *testing.T) {
	n, inside := newNode(t), nstest.New(t)
	before := show(n)
	host := attach(t, n, inside)
	write(t, n, state(n, host))
	got, err := Run(t.Context(), Options{NetNS: n.Path, Pods: true})
	if err != nil {
		t.Fatal(err)
	}
	want := Removed{Routes: 4, Table: true, Policy: true, Tunnels: []string{felix.VXLANDevice}, Pods: []string{host}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, show(n)); diff != "" {
		t.Errorf("the node before and after (-before +after):\n%s", diff)
	}
	again, err := Run(t.Context(), Options{NetNS: n.Path, Pods: true})
	if diff := cmp.Diff(Removed{}, again); diff != "" || err != nil {
		t.Errorf("a second time: %v\n%s", err, diff)
	}
}

func TestPodLinksStayUnlessAskedFor(t *testing.T) {
	n, inside := newNode(t), nstest.New(t)
	host := attach(t, n, inside)
	write(t, n, state(n, host))
	got, err := Run(t.Context(), Options{NetNS: n.Path})
	if err != nil {
		t.Fatal(err)
	}
	want := Removed{Routes: 4, Table: true, Policy: true, Tunnels: []string{felix.VXLANDevice}, PodsLeft: []string{host}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	n.Index(host) // fails when it is gone
	if text := got.String(); !strings.Contains(text, "left to go with their pods: 1 ("+host+")") {
		t.Errorf("the report does not name the link that stays:\n%s", text)
	}
}
