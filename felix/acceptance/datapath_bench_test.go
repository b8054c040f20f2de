package acceptance

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/nft"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	dataRounds = 61
	dataFor    = 150 * time.Millisecond // of bulk data a turn
	dataTrips  = 1000                   // round trips a turn

	dataPods  = 60
	dataNodes = 1000
)

// BenchmarkDataPath sends TCP between two pods on two nodes, over five ways that
// take turns: veths and routes without a rule; the same with one masquerade rule
// (connection tracking is on: the floor of anything with NAT); the same with our
// whole ruleset, as a node with 60 pods in a cluster of 1,000 has it; a bridge on
// each node with routes between them (flannel host-gw); VXLAN between the nodes.
// Figures are medians over the turns; "x" are medians of ours in the other's of
// the same round.
func BenchmarkDataPath(b *testing.B) {
	plain := newWay(b, "plain")
	ways := []*way{plain, plain.ruled("masquerade"), plain.ruled("muslin"), newWay(b, "bridge"), newWay(b, "vxlan")}
	for range b.N {
		for round := range dataRounds {
			for i := range ways {
				ways[(i+round)%len(ways)].turn(b)
			}
		}
	}
	ours := ways[2]
	for _, w := range ways {
		b.ReportMetric(middle(w.rate), w.name+"-Gb/s")
		b.ReportMetric(middle(w.p50), w.name+"-p50-us")
		b.ReportMetric(middle(w.p99), w.name+"-p99-us")
		if w != ours {
			b.ReportMetric(middle(inTurns(ours.rate, w.rate)), "Gb/s-x-"+w.name)
			b.ReportMetric(middle(inTurns(ours.p50, w.p50)), "p50-x-"+w.name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// way is two nodes with a pod each, and what was measured between them.
type way struct {
	name           string
	ends           [2]*end
	rate, p50, p99 []float64 // Gb/s, µs, µs
}

// end is a node and its pod.
type end struct {
	node, pod *nstest.NS
	address   netip.Addr   // the pod's
	block     netip.Prefix // the node's
	uplink    string
	ruleset   string // the file with our rules, as nft lists them
}

func newWay(b *testing.B, name string) *way {
	w := &way{name: name}
	for i := range w.ends {
		w.ends[i] = &end{
			node: nstest.New(b), pod: nstest.New(b), uplink: fmt.Sprintf("10.1.0.%d", i+1),
			address: netip.AddrFrom4([4]byte{10, 65, byte(i + 1), 10}), block: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, byte(i + 1), 0}), 26),
		}
		w.ends[i].node.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	}
	x, y := w.ends[0], w.ends[1]
	x.node.Veth("eth0", y.node, "eth0", []string{x.uplink + "/24"}, []string{y.uplink + "/24"})
	for i, e := range w.ends {
		other := w.ends[1-i]
		switch name {
		case "bridge":
			e.plugBridge()
		default:
			e.plugRouted(b)
		}
		switch name {
		case "vxlan":
			e.tunnel(other, i)
		default:
			e.node.IP(fmt.Sprintf("route add %s via %s dev eth0", other.block, other.uplink))
		}
		if name == "plain" {
			e.rules(b)
		}
	}
	return w
}

// ruled is the same nodes and pods with rules: two pairs of namespaces differ by
// more than the rules cost.
func (w *way) ruled(name string) *way { return &way{name: name, ends: w.ends} }

// oneMasquerade is the least that tracks connections.
const oneMasquerade = "add table ip one; add chain ip one post { type nat hook postrouting priority 100; }; " +
	"add rule ip one post ip saddr 10.65.0.0/16 ip daddr != 10.65.0.0/16 masquerade"

// load replaces the rules of a node by those of a way.
func (e *end) load(name string) {
	e.node.Run("nft", "flush", "ruleset")
	switch name {
	case "masquerade":
		e.node.Run("nft", oneMasquerade)
	case "muslin":
		e.node.Run("nft", "-f", e.ruleset)
	}
}

// plugRouted wires the pod as pods are wired: a veth, a host route, a link-local
// gateway.
func (e *end) plugRouted(b *testing.B) {
	b.Helper()
	e.node.Veth("cali0", e.pod, "eth0", nil, []string{e.address.String() + "/32"})
	const mac = "ee:ee:ee:ee:ee:ee"
	e.node.IP("link set cali0 address " + mac)
	e.node.IP("route add " + e.address.String() + " dev cali0 scope link")
	e.pod.IP("route add 169.254.1.1 dev eth0 scope link")
	e.pod.IP("neigh replace 169.254.1.1 lladdr " + mac + " dev eth0 nud permanent")
	e.pod.IP("route add default via 169.254.1.1 dev eth0")
}

func (e *end) plugBridge() {
	gateway := e.block.Addr().Next()
	e.node.IP("link add br0 type bridge")
	e.node.IP("addr add " + gateway.String() + "/26 dev br0")
	e.node.IP("link set br0 up")
	e.node.Veth("v0", e.pod, "eth0", nil, []string{e.address.String() + "/26"})
	e.node.IP("link set v0 master br0")
	e.pod.IP("route add default via " + gateway.String())
}

// tunnel is the routed way through a VXLAN device, with the MTU it leaves.
func (e *end) tunnel(other *end, i int) {
	mac := func(i int) string { return fmt.Sprintf("66:00:00:00:00:%02x", i+1) }
	e.node.IP(fmt.Sprintf("link add vxlan.calico address %s mtu 1450 type vxlan id 4096 dstport 4789 local %s dev eth0 nolearning", mac(i), e.uplink))
	e.node.IP(fmt.Sprintf("addr add 10.65.%d.1/32 dev vxlan.calico", i+1))
	e.node.IP("link set vxlan.calico up")
	e.node.Run("bridge", "fdb", "add", mac(1-i), "dev", "vxlan.calico", "dst", other.uplink)
	far := fmt.Sprintf("10.65.%d.1", 2-i)
	e.node.IP(fmt.Sprintf("neigh add %s lladdr %s dev vxlan.calico nud permanent", far, mac(1-i)))
	e.node.IP(fmt.Sprintf("route add %s via %s dev vxlan.calico onlink", other.block, far))
	e.node.IP("link set cali0 mtu 1450")
	e.pod.IP("link set eth0 mtu 1450")
}

// rules has the reconciler program, and keeps, what felix.Desired asks for: masquerade for
// pods but not towards pools and nodes, the guard of tunnels for a second pool,
// the guard of service addresses, and the sources of every pod.
func (e *end) rules(b *testing.B) {
	b.Helper()
	in := felix.Input{
		Self: "n1", HostSynced: true, EndpointsSynced: true, LearnedSynced: true,
		Endpoints: []model.Endpoint{{ContainerID: "0", Namespace: "default", Pod: "pod", HostInterface: "cali0", Addresses: []netip.Addr{e.address}}},
		Snapshot: model.Snapshot{
			Synced: true,
			Felix:  []model.FelixConfiguration{{Name: "default", NATExcludeHosts: true}},
			BGP: []model.BGPConfiguration{{
				Name: "default", ServiceClusterIPs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")},
				ServiceLoadBalancers: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")},
			}},
			Pools: []model.Pool{
				{Name: "pods", CIDR: netip.MustParsePrefix("10.65.0.0/16"), BlockSize: 26, NATOutgoing: true},
				{Name: "far", CIDR: netip.MustParsePrefix("10.66.0.0/16"), BlockSize: 26, NATOutgoing: true, VXLAN: model.EncapAlways},
			},
		},
	}
	for i := range dataNodes {
		in.Snapshot.Nodes = append(in.Snapshot.Nodes, model.Node{
			Name: model.NodeName(fmt.Sprintf("n%d", i+1)), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte((i + 1) >> 8), byte(i + 1)}), 16),
		})
	}
	for i := range dataPods - 1 {
		in.Endpoints = append(in.Endpoints, model.Endpoint{
			ContainerID: fmt.Sprint(i + 1), Namespace: "default", Pod: fmt.Sprintf("pod%d", i+1), HostInterface: fmt.Sprintf("cali%d", i+1),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 65, 200, byte(i)})},
		})
	}
	state, _ := felix.Desired(in)
	r, err := nft.New(nft.Options{NetNS: e.node.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	if err := r.Apply(b.Context(), state); err != nil {
		b.Fatal(err)
	}
	e.ruleset = filepath.Join(b.TempDir(), "rules.nft")
	if err := os.WriteFile(e.ruleset, []byte(e.node.Run("nft", "list", "ruleset")), 0o600); err != nil {
		b.Fatal(err)
	}
}

// turn measures bulk data and round trips over one connection each.
func (w *way) turn(b *testing.B) {
	b.Helper()
	for _, e := range w.ends {
		e.load(w.name)
	}
	bytes, took := pump(b, w.ends[0].pod, w.ends[1].pod, w.ends[1].address, dataFor)
	w.rate = append(w.rate, float64(bytes)*8/took.Seconds()/1e9)
	trips := pingPong(b, w.ends[0].pod, w.ends[1].pod, w.ends[1].address, dataTrips)
	slices.Sort(trips)
	w.p50 = append(w.p50, float64(trips[len(trips)/2].Nanoseconds())/1000)
	w.p99 = append(w.p99, float64(trips[len(trips)*99/100].Nanoseconds())/1000)
}

// inTurns gives the ratios of what was measured side by side: a machine that
// changes its pace between rounds changes it for both.
func inTurns(x, y []float64) []float64 {
	out := make([]float64, len(x))
	for i := range x {
		out[i] = x[i] / y[i]
	}
	return out
}

func middle(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
