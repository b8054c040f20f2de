package acceptance

import (
	"fmt"
	"log/slog"
	"math"
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
	dataRounds = 40
	dataWarm   = 20 * time.Millisecond // of bulk data before it counts
	dataFor    = 60 * time.Millisecond // of bulk data a turn
	dataEach   = 4 * time.Millisecond  // of bulk data to be counted together
	dataTrips  = 1000                  // round trips a turn
	dataSmall  = 100                   // bursts of packets of one byte a turn

	dataPods  = 60
	dataNodes = 1000
)

// BenchmarkDataPath sends TCP between two pods on two nodes, over six ways that
// take turns: veths and routes without a rule; the same with one masquerade rule
// (connection tracking is on: the floor of anything with NAT); the same with our
// whole ruleset, as a node with 60 pods in a cluster of 1,000 has it; a bridge on
// each node with routes between them, without a rule and with those of flannel,
// whose host-gw this is; VXLAN between the nodes.
//
// Turns are short, and a round goes through all ways there and back again, so
// that a machine that changes its pace changes it for all of them. Figures are
// medians over the rounds; "x" are medians of ours in the other's of the same
// round, and "±" next to them is half the interval that has the true median in
// it in 95 of 100 runs.
func BenchmarkDataPath(b *testing.B) {
	plain, bridge := newNextHopGroup(b, "plain"), newNextHopGroup(b, "bridge")
	groups := []*group{plain, plain.ruled("masquerade"), plain.ruled("muslin"), bridge, bridge.ruled("flannel"), newNextHopGroup(b, "vxlan")}
	for range b.N {
		for range dataRounds {
			for _, w := range groups {
				w.turn(b)
			}
			slices.Reverse(groups)
			for _, w := range groups {
				w.turn(b)
			}
			slices.Reverse(groups)
		}
	}
	ours := groups[2]
	for _, w := range groups {
		for unit, of := range measured {
			b.ReportMetric(middle(rounds(of(w))), w.name+"-"+unit)
			if w != ours {
				ratio, spread := compare(of(ours), of(w))
				b.ReportMetric(ratio, unit+"-x-"+w.name)
				b.ReportMetric(spread, unit+"-±-"+w.name)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// group is two nodes with a pod each, and what was measured between them, a turn
// after the other.
type group struct {
	name string
	ends [2]*end

	both  []float64 // Gb/s of bulk data, a processor at each end
	alone []float64 // Gb/s of bulk data, one processor for all of it
	trip  []float64 // median round trip, in µs
	small []float64 // time of a processor for a packet of one byte, one way, in ns
}

// measured are the figures by their units.
var measured = map[string]func(*group) []float64{
	"Gb/s-by-2": func(w *group) []float64 { return w.both },
	"Gb/s-by-1": func(w *group) []float64 { return w.alone },
	"trip-us":   func(w *group) []float64 { return w.trip },
	"packet-ns": func(w *group) []float64 { return w.small },
}

// end is a node and its pod.
type end struct {
	node, pod *nstest.NS
	address   netip.Addr   // the pod's
	block     netip.Prefix // the node's
	uplink    string
	ruleset   map[string]string // files with the rules of ways, for nft
}

func newNextHopGroup(b *testing.B, name string) *group {
	w := &group{name: name}
	for i := range w.ends {
		w.ends[i] = &end{
			node: nstest.New(b), pod: nstest.New(b), uplink: fmt.Sprintf("10.1.0.%d", i+1),
			address: netip.AddrFrom4([4]byte{10, 65, byte(i + 1), 10}), block: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 65, byte(i + 1), 0}), 26),
			ruleset: map[string]string{},
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
		e.write(b, name, "")
		switch name {
		case "plain":
			e.write(b, "masquerade", oneMasquerade)
			e.rules(b)
		case "bridge":
			e.write(b, "flannel", fmt.Sprintf(flannelRules, e.block))
		}
	}
	return w
}

// ruled is the same nodes and pods with rules: two pairs of namespaces differ by
// more than the rules cost.
func (w *group) ruled(name string) *group { return &group{name: name, ends: w.ends} }

// oneMasquerade is the least that tracks connections.
const oneMasquerade = `table ip one {
	chain post {
		type nat hook postrouting priority 100
		ip saddr 10.65.0.0/16 ip daddr != 10.65.0.0/16 masquerade
	}
}`

// flannelRules are what flanneld keeps on a node with --ip-masq, as its manifest
// has it, in the nftables mode: the rules of the iptables mode, which cost more.
const flannelRules = `table ip flannel-ipv4 {
	chain forward {
		type filter hook forward priority filter
		ip saddr 10.65.0.0/16 accept
		ip daddr 10.65.0.0/16 accept
	}
	chain postrtg {
		type nat hook postrouting priority srcnat
		meta mark 0x4000 return
		ip saddr %[1]s ip daddr 10.65.0.0/16 return
		ip saddr 10.65.0.0/16 ip daddr %[1]s return
		ip saddr != %[1]s ip daddr 10.65.0.0/16 return
		ip saddr 10.65.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.65.0.0/16 ip daddr 10.65.0.0/16 masquerade fully-random
	}
}`

// write keeps the rules of a way in a file.
func (e *end) write(b *testing.B, name, rules string) {
	b.Helper()
	e.ruleset[name] = filepath.Join(b.TempDir(), name)
	if err := os.WriteFile(e.ruleset[name], []byte("flush ruleset\n"+rules), 0o600); err != nil {
		b.Fatal(err)
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
	e.write(b, "muslin", e.node.Run("nft", "list", "ruleset"))
}

// turn replaces the nodes' rules by those of the way and measures each figure
// over a connection of its own.
func (w *group) turn(b *testing.B) {
	b.Helper()
	for _, e := range w.ends {
		e.node.Run("nft", "-f", e.ruleset[w.name])
	}
	from, to, addr := w.ends[0].pod, w.ends[1].pod, w.ends[1].address
	w.both = append(w.both, pump(b, from, to, addr, 0, 1))
	w.alone = append(w.alone, pump(b, from, to, addr, 1, 1))
	trips := pingPong(b, from, to, addr, dataTrips)
	slices.Sort(trips)
	w.trip = append(w.trip, float64(trips[len(trips)/2].Nanoseconds())/1000)
	w.small = append(w.small, shower(b, from, to, addr, dataSmall))
}

// rounds gives the mean of the two turns of each round.
func rounds(v []float64) []float64 {
	out := make([]float64, len(v)/2)
	for i := range out {
		out[i] = (v[2*i] + v[2*i+1]) / 2
	}
	return out
}

// compare gives the median of the rounds' ratios, and half of its 95 % interval,
// which is between two of the ratios in order whatever their distribution.
func compare(x, y []float64) (ratio, spread float64) {
	out := rounds(x)
	for i, of := range rounds(y) {
		out[i] /= of
	}
	slices.Sort(out)
	n := float64(len(out))
	low := max(int((n-1.96*math.Sqrt(n))/2), 0)
	return middle(out), (out[len(out)-1-low] - out[low]) / 2
}

func middle(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
