package bgp_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

var update = flag.Bool("update", false, "write the goldens anew")

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func ptr[T any](v T) *T            { return &v }

func addrs(list ...string) []netip.Addr {
	out := make([]netip.Addr, len(list))
	for i, s := range list {
		out[i] = addr(s)
	}
	return out
}

func sel(t *testing.T, s string) model.Selector {
	t.Helper()
	x, err := selector.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// node makes node nX with 10.0.0.X in rack "r<rack>".
func node(i, rack int) model.Node {
	return model.Node{
		Name:   model.NodeName(fmt.Sprintf("n%d", i)),
		Labels: map[string]string{"kubernetes.io/hostname": fmt.Sprintf("n%d", i), "rack": fmt.Sprintf("r%d", rack)},
		IPv4:   netip.MustParsePrefix(fmt.Sprintf("10.0.%d.%d/24", rack, i)),
	}
}

func dual(n model.Node) model.Node {
	last := n.IPv4.Addr().As4()
	n.IPv6 = netip.MustParsePrefix(fmt.Sprintf("fd00:%d::%d/64", last[2], last[3]))
	return n
}

// cluster is three nodes in two racks, one pool, a block of n1 and one of n2.
func cluster() model.Snapshot {
	return model.Snapshot{
		Synced: true,
		Nodes:  []model.Node{node(1, 1), node(2, 1), node(10, 2)},
		Pools:  []model.Pool{{Name: "default", CIDR: prefix("10.244.0.0/16"), BlockSize: 26}},
		BGP:    []model.BGPConfiguration{{Name: "default"}},
		Blocks: []model.Block{
			{CIDR: prefix("10.244.1.0/26"), Node: "n1", State: model.BlockConfirmed},
			{CIDR: prefix("10.244.1.64/26"), Node: "n1", State: model.BlockPending},
			{CIDR: prefix("10.244.1.128/26"), Node: "n1", State: model.BlockPendingDeletion},
			{CIDR: prefix("10.244.2.0/26"), Node: "n2", State: model.BlockConfirmed},
		},
	}
}

// text is a golden: the configuration and what could not be honoured.
func text(c bgp.Config, ps []model.Problem) string {
	var w strings.Builder
	fmt.Fprint(&w, c)
	for _, p := range ps {
		fmt.Fprintf(&w, "problem %s [%s]\n", p, p.Reason)
	}
	return w.String()
}

func noMesh(s *model.Snapshot) { s.BGP[0].MeshEnabled = ptr(false) }

func tor(change ...func(*model.BGPPeer)) model.BGPPeer {
	p := model.BGPPeer{Name: "tor", PeerIP: addr("10.0.1.254"), ASN: 65001}
	for _, f := range change {
		f(&p)
	}
	return p
}

type scenario struct {
	name   string
	self   model.NodeName
	change func(*testing.T, *model.Snapshot)
}

// peerField is a scenario in which one field of a global peer is set.
func peerField(name string, change func(*model.BGPPeer)) scenario {
	return scenario{"peer-" + name, "n1", func(_ *testing.T, s *model.Snapshot) {
		noMesh(s)
		s.Peers = []model.BGPPeer{tor(change)}
	}}
}

var scenarios = []scenario{
	{"mesh", "n1", func(*testing.T, *model.Snapshot) {}},
	{"mesh-last", "n2", func(*testing.T, *model.Snapshot) {}},
	{"mesh-off", "n1", func(_ *testing.T, s *model.Snapshot) { noMesh(s) }},
	{"mesh-dual", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0], s.Nodes[1] = dual(s.Nodes[0]), dual(s.Nodes[1])
		s.Pools = append(s.Pools, model.Pool{Name: "six", CIDR: prefix("fd44::/48")})
		s.Blocks = append(s.Blocks, model.Block{CIDR: prefix("fd44::40/122"), Node: "n1", State: model.BlockConfirmed})
	}},
	{"mesh-asn", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].ASN = 65100
		s.Nodes[1].ASN = 65200
	}},
	{"mesh-route-priority", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0] = dual(s.Nodes[0])
		s.Blocks = append(s.Blocks, model.Block{CIDR: prefix("fd44::40/122"), Node: "n1", State: model.BlockConfirmed})
		s.BGP[0].RoutePriority, s.BGP[0].RoutePriorityV6 = 500, 600
	}},
	{"mesh-own-asn", "n2", func(_ *testing.T, s *model.Snapshot) { s.Nodes[1].ASN = 65200 }},
	{"mesh-password", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].MeshPassword = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("x")}
		s.BGP[0].MeshMaxRestartTime = 300 * time.Second
	}},
	{"mesh-password-missing", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].MeshPassword = &model.PasswordRef{SecretName: "s", Key: "k"}
		s.Peers = []model.BGPPeer{tor()}
	}},
	{"mesh-annotations", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].Annotations = map[string]string{
			"muslin.io/hold-time": "9s", "muslin.io/bfd": "300ms", "muslin.io/max-paths": "4", "muslin.io/typo": "x", "other/x": "y",
		}
	}},
	{"mesh-reflector-left-out", "n1", func(_ *testing.T, s *model.Snapshot) { s.Nodes[1].RouteReflectorClusterID = "1.0.0.1" }},
	{"listen", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].ListenPort, s.BGP[0].BindNodeIP = 1179, true
		s.BGP = append(s.BGP, model.BGPConfiguration{Name: "node.n2", ListenPort: 2179})
	}},
	{"router-id-of-an-ipv6-node", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0] = dual(s.Nodes[0])
		s.Nodes[0].IPv4 = netip.Prefix{}
		s.Nodes[1] = dual(s.Nodes[1])
	}},
	{"unknown-node", "n99", func(*testing.T, *model.Snapshot) {}},
	{"borrowed", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Borrowed = []netip.Prefix{prefix("10.244.2.7/32"), prefix("10.244.1.3/32")}
	}},
	{"pools", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Pools = append(s.Pools,
			model.Pool{Name: "hidden", CIDR: prefix("10.245.0.0/16"), DisableBGPExport: true},
			model.Pool{Name: "off", CIDR: prefix("10.246.0.0/16"), Disabled: true})
		s.Blocks = append(s.Blocks, model.Block{CIDR: prefix("10.245.0.0/26"), Node: "n1", State: model.BlockConfirmed})
	}},

	{"peer-global", "n1", func(_ *testing.T, s *model.Snapshot) { s.Peers = []model.BGPPeer{tor()} }},
	{"peer-node", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Peers = []model.BGPPeer{
			tor(func(p *model.BGPPeer) { p.Node = "n1" }),
			tor(func(p *model.BGPPeer) { p.Name, p.Node, p.PeerIP = "other", "n2", addr("10.0.1.253") }),
		}
	}},
	{"peer-node-selector", "n1", func(t *testing.T, s *model.Snapshot) {
		s.Peers = []model.BGPPeer{
			tor(func(p *model.BGPPeer) { p.NodeSelector = sel(t, "rack == 'r1'") }),
			tor(func(p *model.BGPPeer) {
				p.Name, p.NodeSelector, p.PeerIP = "tor2", sel(t, "rack == 'r2'"), addr("10.0.2.254")
			}),
		}
	}},
	{"peer-both-families", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0] = dual(s.Nodes[0])
		s.Peers = []model.BGPPeer{tor()}
	}},
	{"peer-of-each-family", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0] = dual(s.Nodes[0])
		s.Peers = []model.BGPPeer{tor(), tor(func(p *model.BGPPeer) { p.Name, p.PeerIP = "tor6", addr("fd00:1::254") })}
	}},
	{"peer-unnumbered", "n1", func(_ *testing.T, s *model.Snapshot) {
		noMesh(s)
		s.Peers = []model.BGPPeer{
			tor(func(p *model.BGPPeer) { p.Name, p.PeerIP = "left", addr("fe80::1%eth0") }),
			tor(func(p *model.BGPPeer) { p.Name, p.PeerIP = "right", addr("fe80::2%eth1") }),
			tor(func(p *model.BGPPeer) { p.Name, p.PeerIP = "where", addr("fe80::3") }),
		}
	}},
	{"peer-conflict", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Peers = []model.BGPPeer{
			tor(func(p *model.BGPPeer) { p.Name, p.Node, p.PeerPort = "a-node", "n1", 1179 }),
			tor(func(p *model.BGPPeer) { p.Name = "b-global" }),
		}
	}},
	{"peer-invalid", "n1", func(t *testing.T, s *model.Snapshot) {
		s.Peers = []model.BGPPeer{
			{Name: "empty"},
			{Name: "family", PeerIP: addr("fd00::1"), ASN: 1},
			{Name: "good", PeerIP: addr("10.0.1.253"), ASN: 65001},
			{Name: "loopback", PeerIP: addr("127.0.0.1"), ASN: 1},
			{Name: "node-and-selector", Node: "n2", NodeSelector: sel(t, "all()"), PeerIP: addr("10.0.1.252"), ASN: 65001},
			{Name: "self", PeerIP: addr("10.0.1.1"), ASN: 64512},
			{Name: "workload", HasLocalWorkloadPeering: true, ASN: 65001},
		}
	}},
	{"peer-workloads", "n1", func(t *testing.T, s *model.Snapshot) {
		noMesh(s)
		workloads(t, s)
		s.Filters = []model.BGPFilter{{Name: "nested", ImportV4: []model.FilterRule{
			{CIDR: prefix("10.123.0.0/16"), MatchOperator: "In", Accept: true}, {},
		}}}
		s.Peers[0].Filters = []string{"nested"}
		s.Peers = append(s.Peers, tor())
	}},
	{"peer-workloads-no-address", "n1", func(t *testing.T, s *model.Snapshot) {
		noMesh(s)
		workloads(t, s)
		s.BGP[0].LocalWorkloadPeerIPv4, s.BGP[0].LocalWorkloadPeerIPv6 = netip.Addr{}, addr("fe80::179")
	}},
	{"peer-two-as-no-loop", "n1", func(_ *testing.T, s *model.Snapshot) { // a node without an external peer is passed on
		s.Peers = []model.BGPPeer{
			tor(func(p *model.BGPPeer) { p.Node = "n1" }),
			tor(func(p *model.BGPPeer) { p.Name, p.Node, p.PeerIP = "tor2", "n10", addr("10.0.2.254") }),
		}
	}},
	peerField("port", func(p *model.BGPPeer) { p.PeerPort = 1179 }),
	peerField("default-as", func(p *model.BGPPeer) { p.ASN = 0 }),
	peerField("local-as", func(p *model.BGPPeer) { p.LocalASN = 65300 }),
	peerField("next-hop-self", func(p *model.BGPPeer) { p.NextHopMode = "Self" }),
	peerField("next-hop-keep", func(p *model.BGPPeer) { p.NextHopMode = "Keep" }),
	peerField("keep-original-next-hop", func(p *model.BGPPeer) { p.KeepOriginalNextHop = true }),
	peerField("password", func(p *model.BGPPeer) {
		p.Password = &model.PasswordRef{Known: true, Value: model.NewSecret("x")}
	}),
	peerField("password-missing", func(p *model.BGPPeer) { p.Password = &model.PasswordRef{SecretName: "s", Key: "k"} }),
	peerField("source-none", func(p *model.BGPPeer) { p.AnySource = true }),
	peerField("restart-time", func(p *model.BGPPeer) { p.MaxRestartTime = 30 * time.Second }),
	peerField("restart-time-too-long", func(p *model.BGPPeer) { p.MaxRestartTime = 2 * time.Hour }),
	peerField("keepalive", func(p *model.BGPPeer) { p.KeepaliveTime = 5 * time.Second }),
	peerField("allow-as-in", func(p *model.BGPPeer) { p.NumAllowedLocalASNs = 2 }),
	peerField("ttl-security", func(p *model.BGPPeer) { p.TTLSecurity = 1 }),
	peerField("reachable-by", func(p *model.BGPPeer) { p.ReachableBy = addr("10.0.1.253") }),
	peerField("reachable-by-other-family", func(p *model.BGPPeer) { p.ReachableBy = addr("fd00::1") }),
	peerField("annotations", func(p *model.BGPPeer) {
		p.Annotations = map[string]string{
			"muslin.io/hold-time": "9s", "muslin.io/bfd": "50ms", "muslin.io/bfd-multiplier": "5",
			"muslin.io/prefix-limit": "1000", "muslin.io/families": "ipv4", "muslin.io/re-export": "All",
		}
	}),
	peerField("annotations-bad", func(p *model.BGPPeer) {
		p.Annotations = map[string]string{
			"muslin.io/hold-time": "1s", "muslin.io/bfd": "fast", "muslin.io/prefix-limit": "-1",
			"muslin.io/families": "ipv6", "muslin.io/re-export": "yes", "muslin.io/holdtime": "9s",
		}
	}),

	peerField("connection", func(p *model.BGPPeer) {
		p.Annotations = map[string]string{
			"muslin.io/connect-retry": "30s", "muslin.io/connect": "Passive", "muslin.io/multihop-ttl": "2", "muslin.io/graceful-restart": "Off",
		}
	}),
	peerField("connection-default", func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/connect": "Both", "muslin.io/graceful-restart": "On"}
	}),
	peerField("connection-bad", func(p *model.BGPPeer) {
		p.Annotations = map[string]string{
			"muslin.io/connect-retry": "0s", "muslin.io/connect": "Active", "muslin.io/multihop-ttl": "256",
			"muslin.io/graceful-restart": "off", "muslin.io/source-address": "lo",
		}
	}),
	peerField("multihop-and-ttl-security", func(p *model.BGPPeer) {
		p.TTLSecurity, p.Annotations = 1, map[string]string{"muslin.io/multihop-ttl": "2"}
	}),

	{"reflector", "n1", reflector},
	{"reflector-client", "n2", reflector},
	{"reflector-same-cluster", "n1", func(t *testing.T, s *model.Snapshot) {
		reflector(t, s)
		s.Nodes[1].RouteReflectorClusterID = "1.0.0.1"
		s.Nodes[1].Labels["rr"] = "true"
	}},
	{"reflector-services", "n1", func(t *testing.T, s *model.Snapshot) {
		reflector(t, s)
		s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix("172.20.0.0/16")}
		s.Nodes[0].ExcludeFromExternalLB = true
	}},
	{"reflector-manual", "n1", func(t *testing.T, s *model.Snapshot) {
		reflector(t, s)
		s.Peers[0].NoReverse = true
	}},
	{"reflector-by-address", "n1", func(t *testing.T, s *model.Snapshot) {
		s.Nodes[0].RouteReflectorClusterID = "1.0.0.1"
		s.Peers = []model.BGPPeer{{Name: "to-rr", PeerIP: addr("10.0.1.1"), ASN: 64512, NodeSelector: sel(t, "kubernetes.io/hostname != 'n1'")}}
	}},

	{"filters", "n1", filters},
	{"filters-bad", "n1", badFilters},
	{"communities", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].Communities = map[string]string{"blue": "65000:1", "large": "1:2:3", "broken": "70000:1"}
		s.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{
			{CIDR: prefix("10.244.0.0/16"), Communities: []string{"blue", "large", "65000:02"}},
			{CIDR: prefix("10.244.1.0/24"), Communities: []string{"green", "broken", "x:y"}},
		}
	}},
	{"communities-of-the-node", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{{CIDR: prefix("10.244.0.0/16"), Communities: []string{"65000:1"}}}
		s.BGP = append(s.BGP, model.BGPConfiguration{
			Name:                 "node.n1",
			PrefixAdvertisements: []model.PrefixAdvertisement{{CIDR: prefix("10.244.0.0/16"), Communities: []string{"65000:2"}}},
		})
	}},
	{"drain-shutdown", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "Shutdown"}
	}},
	{"drain-shutdown-router-and-filters", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "Shutdown"}
		s.Filters = []model.BGPFilter{{Name: "f", ExportV4: []model.FilterRule{
			{Priority: ptr(1024), Accept: true, Operations: []model.FilterOperation{{SetPriority: ptr(512)}, {AddCommunity: "65000:1"}}},
			{Source: "RemotePeers", Accept: true},
			{CIDR: prefix("10.244.9.0/24"), MatchOperator: "In"},
		}}}
		s.Peers = []model.BGPPeer{tor(func(p *model.BGPPeer) { p.Filters = []string{"f"} }),
			{Name: "inside", PeerIP: addr("10.0.1.253"), ASN: 64512, Filters: []string{"f"}}}
	}},
	{"drain-shutdown-reflector", "n1", func(t *testing.T, s *model.Snapshot) {
		s.Nodes[0].RouteReflectorClusterID = "1.0.0.1"
		s.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "Shutdown"}
		s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix("172.20.0.0/16")}
		noMesh(s)
		s.Peers = []model.BGPPeer{{Name: "rr", NodeSelector: sel(t, "has(rack)"), PeerIP: addr("10.0.1.1"), ASN: 64512}}
	}},
	{"drain-deleting", "n1", func(_ *testing.T, s *model.Snapshot) { s.Nodes[0].Deleting = true }},
	{"drain-withdrawn", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "Withdrawn"}
	}},
	{"drain-unknown", "n1", func(_ *testing.T, s *model.Snapshot) {
		s.Nodes[0].Annotations = map[string]string{"muslin.io/drain": "now"}
	}},
	{"services", "n1", services},
	{"services-not-aggregated", "n1", func(t *testing.T, s *model.Snapshot) {
		services(t, s)
		s.BGP[0].NoLBAggregation = true
	}},
	{"services-internal-local", "n1", func(_ *testing.T, s *model.Snapshot) {
		noMesh(s)
		s.BGP[0].ServiceClusterIPs = []netip.Prefix{prefix("10.96.0.0/12")}
		s.BGP[0].ServiceExternalIPs = []netip.Prefix{prefix("192.0.2.0/24")}
		here, last := model.Endpoints{Here: true, Anywhere: true}, model.Endpoints{LastHere: true, LastAnywhere: true}
		s.Services = []model.Service{
			{Name: "here", InternalLocal: true, ClusterIPs: addrs("10.96.0.1"), ExternalIPs: addrs("192.0.2.1"), IPv4: here},
			{Name: "elsewhere", InternalLocal: true, ClusterIPs: addrs("10.96.0.2"), IPv4: model.Endpoints{Anywhere: true}},
			{Name: "ends", InternalLocal: true, ClusterIPs: addrs("10.96.0.3"), IPv4: last},
			{Name: "both", InternalLocal: true, LocalTraffic: true, ClusterIPs: addrs("10.96.0.4"), ExternalIPs: addrs("192.0.2.4"), IPv4: here},
			{Name: "neither", ClusterIPs: addrs("10.96.0.5"), IPv4: here},
		}
	}},
	{"services-cordoned", "n1", func(t *testing.T, s *model.Snapshot) {
		services(t, s)
		s.BGP[0].Annotations = map[string]string{bgp.AnnotationCordoned: "LastResort"}
		s.Nodes[0].Unschedulable = true
	}},
	{"services-cordoned-default", "n1", func(t *testing.T, s *model.Snapshot) {
		services(t, s)
		s.BGP[0].Annotations = map[string]string{bgp.AnnotationCordoned: "Withdraw"}
		s.Nodes[0].Unschedulable = true
	}},
	{"services-selected", "n1", selectedServices},
	{"services-selected-excluded", "n1", func(t *testing.T, s *model.Snapshot) {
		selectedServices(t, s)
		s.Nodes[0].ExcludeFromExternalLB = true
	}},
	{"services-selected-cordoned", "n1", func(t *testing.T, s *model.Snapshot) {
		selectedServices(t, s)
		s.BGP[0].Annotations = map[string]string{bgp.AnnotationCordoned: "LastResort"}
		s.Nodes[0].Unschedulable = true
	}},
	{"services-selected-reflector", "n1", func(t *testing.T, s *model.Snapshot) {
		selectedServices(t, s)
		s.Nodes[0].RouteReflectorClusterID = "1.0.0.1"
	}},
	{"services-selected-drained", "n1", func(t *testing.T, s *model.Snapshot) {
		selectedServices(t, s)
		s.Nodes[0].Annotations = map[string]string{bgp.AnnotationDrain: bgp.DrainShutdown}
	}},
	{"services-excluded", "n1", func(t *testing.T, s *model.Snapshot) {
		services(t, s)
		s.Nodes[0].ExcludeFromExternalLB = true
	}},
}

func reflector(t *testing.T, s *model.Snapshot) {
	noMesh(s)
	s.Nodes[0].RouteReflectorClusterID = "1.0.0.1"
	s.Nodes[0].Labels["rr"] = "true"
	s.Peers = []model.BGPPeer{{Name: "to-rr", NodeSelector: sel(t, "all()"), PeerSelector: sel(t, "rr == 'true'")}}
}

func filters(_ *testing.T, s *model.Snapshot) {
	noMesh(s)
	s.Peers = []model.BGPPeer{tor(func(p *model.BGPPeer) { p.Filters = []string{"a", "b"} })}
	s.Filters = []model.BGPFilter{
		{
			Name: "a",
			ExportV4: []model.FilterRule{
				{CIDR: prefix("10.244.1.0/26"), MatchOperator: "Equal", Accept: true, Operations: []model.FilterOperation{
					{AddCommunity: "65000:7"}, {AddCommunity: "1:2:3"}, {PrependASPath: []model.ASN{64512, 64512}}, {SetPriority: ptr(512)},
				}},
				{CIDR: prefix("10.244.0.0/16"), MatchOperator: "In", MinLength: ptr(27), MaxLength: ptr(32)},
				{CIDR: prefix("10.244.0.0/16"), MatchOperator: "NotIn"},
				{CIDR: prefix("10.244.3.0/26"), MatchOperator: "NotEqual", Source: "RemotePeers"},
			},
			ImportV4: []model.FilterRule{
				{PeerType: "iBGP"},
				{PeerType: "eBGP", Communities: []string{"65000:1"}, Accept: true},
				{ASPathPrefix: []model.ASN{65001, 65002}, Source: "RemotePeers", Accept: true},
				{Priority: ptr(512)},
			},
		},
		{Name: "b", ExportV6: []model.FilterRule{{}}, ImportV6: []model.FilterRule{{Accept: true}}},
	}
}

func badFilters(_ *testing.T, s *model.Snapshot) {
	noMesh(s)
	s.Peers = []model.BGPPeer{tor(func(p *model.BGPPeer) { p.Filters = []string{"bad", "missing"} })}
	s.Filters = []model.BGPFilter{{Name: "bad", ExportV4: []model.FilterRule{
		{CIDR: prefix("fd00::/8"), MatchOperator: "In"},
		{CIDR: prefix("10.0.0.0/8"), MatchOperator: "Around"},
		{MinLength: ptr(3)},
		{CIDR: prefix("10.0.0.0/8"), MatchOperator: "In", MinLength: ptr(30), MaxLength: ptr(20)},
		{Interface: "eth["},
		{PeerType: "xBGP"},
		{Source: "Local"},
		{Communities: []string{"1:1", "2:2"}},
		{Communities: []string{"1"}},
		{Priority: ptr(-1)},
		{Accept: true, Operations: []model.FilterOperation{{}}},
		{Accept: true, Operations: []model.FilterOperation{{AddCommunity: "65536:1"}}},
		{Accept: true, Operations: []model.FilterOperation{{SetPriority: ptr(-1)}}},
		{Accept: true},
	}}}
}

func services(_ *testing.T, s *model.Snapshot) {
	noMesh(s)
	s.BGP[0].ServiceClusterIPs = []netip.Prefix{prefix("10.96.0.0/12")}
	s.BGP[0].ServiceExternalIPs = []netip.Prefix{prefix("192.0.2.0/24"), prefix("198.51.100.7/32")}
	s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix("172.20.0.0/16")}
	s.Services = []model.Service{
		{Name: "cluster", Type: "LoadBalancer", ClusterIPs: []netip.Addr{addr("10.96.0.1")}, LoadBalancerIPs: []netip.Addr{addr("172.20.0.1")}, IPv4: model.Endpoints{Anywhere: true}},
		{Name: "local-here", Type: "LoadBalancer", LocalTraffic: true, IPv4: model.Endpoints{Here: true, Anywhere: true},
			ClusterIPs: []netip.Addr{addr("10.96.0.2")}, ExternalIPs: []netip.Addr{addr("192.0.2.2"), addr("203.0.113.1")}, LoadBalancerIPs: []netip.Addr{addr("172.20.0.2")}},
		{Name: "local-elsewhere", Type: "LoadBalancer", LocalTraffic: true, IPv4: model.Endpoints{Anywhere: true},
			ClusterIPs: []netip.Addr{addr("10.96.0.3")}, LoadBalancerIPs: []netip.Addr{addr("172.20.0.3")}},
		{Name: "single", Type: "ClusterIP", ClusterIPs: []netip.Addr{addr("10.96.0.4")}, ExternalIPs: []netip.Addr{addr("198.51.100.7"), addr("192.0.2.9")}},
		{Name: "not-ready", Type: "LoadBalancer", LoadBalancerIPs: []netip.Addr{addr("172.20.0.5")}},
	}
}

// selectedServices: the router "inner" hears of Services of tier gold one by one, with a
// community and a LOCAL_PREF, of those of tier tin in aggregates, and of no other address
// of a Service; "outer" hears of ranges, as if there were no such filter.
func selectedServices(t *testing.T, s *model.Snapshot) {
	noMesh(s)
	s.Nodes[0] = dual(s.Nodes[0])
	s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix("172.20.0.0/16"), prefix("fd72::/64")}
	s.BGP[0].ServiceClusterIPs = []netip.Prefix{prefix("10.96.0.0/12")}
	s.Peers = []model.BGPPeer{
		{Name: "inner", PeerIP: addr("10.0.1.253"), ASN: 64512, Filters: []string{"gold", "tin", "rest"}},
		tor(func(p *model.BGPPeer) { p.Name = "outer" }),
	}
	loadBalancers := model.FilterRule{CIDR: prefix("172.20.0.0/16"), MatchOperator: "In", Accept: true}
	six := model.FilterRule{Accept: true}
	gold := loadBalancers
	gold.Operations = []model.FilterOperation{{AddCommunity: "65000:80"}, {AddCommunity: "64512:1:2"}, {SetPriority: ptr(512)}}
	s.Filters = []model.BGPFilter{
		{Name: "gold", Services: sel(t, "tier == 'gold'"), ExportV4: []model.FilterRule{
			{CIDR: prefix("172.20.0.9/32"), MatchOperator: "Equal"}, gold}},
		{Name: "tin", Services: sel(t, "tier == 'tin' && projectcalico.org/namespace != 'kube-system'"), AggregationLength: 28, AggregationLengthV6: 16,
			ExportV4: []model.FilterRule{loadBalancers}, ExportV6: []model.FilterRule{six}},
		{Name: "rest", ExportV4: []model.FilterRule{{CIDR: prefix("172.20.0.0/16"), MatchOperator: "In"}, {CIDR: prefix("10.96.0.0/12"), MatchOperator: "In"}}},
		{Name: "unused", Services: sel(t, "all()"), ExportV4: []model.FilterRule{{Accept: true}}},
	}
	anywhere, here := model.Endpoints{Anywhere: true}, model.Endpoints{Here: true, Anywhere: true}
	labels := func(tier string) map[string]string {
		return map[string]string{"tier": tier, "projectcalico.org/namespace": "default"}
	}
	s.Services = []model.Service{
		{Name: "gold", Labels: labels("gold"), ClusterIPs: addrs("10.96.0.1"), LoadBalancerIPs: addrs("172.20.0.1"), IPv4: anywhere},
		{Name: "gold-local", Labels: labels("gold"), LocalTraffic: true, LoadBalancerIPs: addrs("172.20.0.2"), IPv4: here},
		{Name: "gold-local-elsewhere", Labels: labels("gold"), LocalTraffic: true, LoadBalancerIPs: addrs("172.20.0.3"), IPv4: anywhere},
		{Name: "gold-ends", Labels: labels("gold"), LocalTraffic: true, LoadBalancerIPs: addrs("172.20.0.4"), IPv4: model.Endpoints{LastHere: true, LastAnywhere: true}},
		{Name: "gold-nowhere", Labels: labels("gold"), LoadBalancerIPs: addrs("172.20.0.5")},
		{Name: "gold-refused", Labels: labels("gold"), LoadBalancerIPs: addrs("172.20.0.9"), IPv4: anywhere},
		{Name: "gold-outside", Labels: labels("gold"), LoadBalancerIPs: addrs("198.51.100.1"), IPv4: anywhere},
		{Name: "tin", Labels: labels("tin"), LoadBalancerIPs: addrs("172.20.1.1", "fd72::1"), IPv4: anywhere, IPv6: anywhere},
		{Name: "tin-too", Labels: labels("tin"), LoadBalancerIPs: addrs("172.20.1.2"), IPv4: anywhere},
		{Name: "tin-far", Labels: labels("tin"), LoadBalancerIPs: addrs("172.20.1.99"), IPv4: anywhere},
		{Name: "plain", LoadBalancerIPs: addrs("172.20.1.3"), IPv4: anywhere},
	}
}

func TestDesired(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			snap := cluster()
			sc.change(t, &snap)
			got := text(bgp.Desired(snap, sc.self))
			file := filepath.Join("testdata", sc.name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if again := text(bgp.Desired(snap, sc.self)); again != got {
				t.Errorf("the same snapshot gave another configuration:\n%s", cmp.Diff(got, again))
			}
		})
	}
}

// Every session has its other end: what one node wants of another, the other
// wants of it, with one side waiting.
func TestBothEnds(t *testing.T) {
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			snap := cluster()
			sc.change(t, &snap)
			byAddr := map[netip.Addr]model.NodeName{}
			configs := map[model.NodeName]bgp.Config{}
			for _, n := range snap.Nodes {
				byAddr[n.IPv4.Addr()], byAddr[n.IPv6.Addr()] = n.Name, n.Name
				configs[n.Name], _ = bgp.Desired(snap, n.Name)
			}
			for name, c := range configs {
				for _, p := range c.Peers {
					far, ok := byAddr[p.Address]
					if !ok || sc.name == "reflector-manual" || sc.name == "drain-withdrawn" {
						continue
					}
					q, ok := configs[far].Peer(p.LocalAddress)
					if !ok {
						t.Errorf("%s wants %s, which does not want it", name, far)
						continue
					}
					if p.Passive == q.Passive || p.ASN != q.LocalASN || p.LocalASN != q.ASN || !cmp.Equal(p.Families, q.Families) {
						t.Errorf("%s and %s differ:\n%s\n%s", name, far, p, q)
					}
				}
			}
		})
	}
}

func TestLogSeverity(t *testing.T) {
	of := func(name, severity string) model.BGPConfiguration {
		return model.BGPConfiguration{Name: name, LogSeverity: severity}
	}
	for _, c := range []struct {
		list []model.BGPConfiguration
		want string
	}{
		{nil, ""},
		{[]model.BGPConfiguration{of("default", "Debug")}, "Debug"},
		{[]model.BGPConfiguration{of("node.n1", "Error"), of("default", "Debug")}, "Error"},
		{[]model.BGPConfiguration{of("default", "Debug"), of("node.n1", "Error")}, "Error"},
		{[]model.BGPConfiguration{of("default", "Debug"), of("node.n1", ""), of("node.n2", "Error")}, "Debug"},
	} {
		if got := bgp.LogSeverity(model.Snapshot{BGP: c.list}, "n1"); got != c.want {
			t.Errorf("%+v: %q, want %q", c.list, got, c.want)
		}
	}
}

// workloads are three pods of the node, of which two speak BGP.
func workloads(t *testing.T, s *model.Snapshot) {
	s.Nodes[0] = dual(s.Nodes[0])
	s.BGP[0].LocalWorkloadPeerIPv4, s.BGP[0].LocalWorkloadPeerIPv6 = addr("169.254.0.179"), addr("fd12::179")
	s.BGP[0].ServiceClusterIPs = []netip.Prefix{prefix("10.96.0.0/12")}
	s.Workloads = []model.Workload{
		{Namespace: "ns", Pod: "blue", Labels: map[string]string{"color": "blue"}, Addresses: []netip.Addr{addr("10.244.0.3")}},
		{Namespace: "ns", Pod: "plain", Addresses: []netip.Addr{addr("10.244.0.4")}},
		{Namespace: "ns", Pod: "red", Labels: map[string]string{"color": "red"}, Addresses: []netip.Addr{addr("10.244.0.5"), addr("fd00:244::5")}},
	}
	s.Peers = []model.BGPPeer{
		{Name: "red", HasLocalWorkloadPeering: true, LocalWorkloadSelector: sel(t, "color == 'red'"), ASN: 65401, PeerPort: 0},
		{Name: "elsewhere", Node: "n2", HasLocalWorkloadPeering: true, LocalWorkloadSelector: sel(t, "all()"), ASN: 65402},
		{Name: "blue", NodeSelector: sel(t, "rack == 'r1'"), HasLocalWorkloadPeering: true, LocalWorkloadSelector: sel(t, "color == 'blue'"), ASN: 65403},
	}
}
