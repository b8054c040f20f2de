package felix

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/pkg/model"
)

var update = flag.Bool("update", false, "write the goldens anew")

func pfx(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func ip(s string) netip.Addr    { return netip.MustParseAddr(s) }

func ips(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, ip(t))
	}
	return out
}

func learned(prefix string, hops ...string) model.Learned {
	return model.Learned{Prefix: pfx(prefix), Multipath: &model.Multipath{NextHops: ips(hops...)}}
}

// Interface indexes of the node in the tests.
const (
	eth0, eth1, podA, podB, tunl0, vxlan4, vxlan6 = 2, 3, 10, 11, 20, 21, 22
)

func link(index int, name, kind string, mtu int, addrs ...string) model.Link {
	l := model.Link{Index: index, Name: name, Kind: kind, Up: true, AdminUp: true, MTU: mtu}
	for _, a := range addrs {
		l.Addresses = append(l.Addresses, pfx(a))
	}
	return l
}

// base is node a in rack 1: two nodes in the rack, one in another, a block of
// each family, two pods.
func base() Input {
	return Input{
		Self: "a", LearnedSynced: true, HostSynced: true, EndpointsSynced: true,
		Snapshot: model.Snapshot{
			Synced: true,
			Nodes: []model.Node{
				{Name: "a", IPv4: pfx("10.1.0.1/24"), IPv6: pfx("fd01::1/64")},
				{Name: "b", IPv4: pfx("10.1.0.2/24"), IPv6: pfx("fd01::2/64")},
				{Name: "c", IPv4: pfx("10.2.0.3/24"), IPv6: pfx("fd02::3/64")},
			},
			Pools: []model.Pool{
				{Name: "v4", CIDR: pfx("10.65.0.0/16"), BlockSize: 26, NATOutgoing: true},
				{Name: "v6", CIDR: pfx("fd65::/48"), BlockSize: 122},
			},
			Blocks: []model.Block{
				{CIDR: pfx("10.65.0.0/26"), Node: "a", State: model.BlockConfirmed},
				{CIDR: pfx("10.65.0.64/26"), Node: "a", State: model.BlockPending},
				{CIDR: pfx("10.65.0.128/26"), Node: "a", State: model.BlockPendingDeletion},
				{CIDR: pfx("10.65.200.1/32"), Node: "a", State: model.BlockConfirmed},
				{CIDR: pfx("10.65.1.0/26"), Node: "b", State: model.BlockConfirmed},
				{CIDR: pfx("fd65::/122"), Node: "a", State: model.BlockConfirmed},
			},
		},
		Learned: []model.Learned{
			learned("10.65.1.0/26", "10.1.0.2"),
			learned("10.65.2.0/26", "10.2.0.3"),
			learned("fd65::1:0/122", "fd01::2"),
			learned("fd65::2:0/122", "fd02::3"),
		},
		Host: model.Host{
			Links: []model.Link{
				link(1, "lo", "", 65536, "127.0.0.1/8", "::1/128"),
				link(eth0, "eth0", "", 1500, "10.1.0.1/24", "fd01::1/64", "fe80::1/64"),
				link(podA, "cali000000000aa", "veth", 1500, "fe80::ecee:eeff:feee:eeee/64"),
				link(podB, "cali000000000bb", "veth", 1500, "fe80::ecee:eeff:feee:eeee/64"),
			},
			Routes: []model.HostRoute{
				{Prefix: pfx("0.0.0.0/0"), Gateways: ips("10.1.0.254"), LinkIndex: eth0, Protocol: 3},
				{Prefix: pfx("10.1.0.0/24"), LinkIndex: eth0, Protocol: 2},
				{Prefix: pfx("::/0"), Gateways: ips("fd01::254"), LinkIndex: eth0, Protocol: 3, Metric: 1024},
				{Prefix: pfx("fd01::/64"), LinkIndex: eth0, Protocol: 2, Metric: 256},
			},
		},
		Endpoints: []model.Endpoint{
			{ContainerID: "1", Interface: "eth0", Namespace: "ns", Pod: "a", HostInterface: "cali000000000aa", Addresses: ips("10.65.0.5", "fd65::5")},
			{ContainerID: "2", Interface: "eth0", Namespace: "ns", Pod: "b", HostInterface: "cali000000000bb", Addresses: ips("10.65.0.6"),
				SourcePrefixes: []netip.Prefix{pfx("10.99.0.0/24")}},
		},
	}
}

// floatingPools are pools for floating addresses.
func floatingPools() []model.Pool {
	return []model.Pool{{Name: "f4", CIDR: pfx("10.99.0.0/24"), Manual: true}, {Name: "f6", CIDR: pfx("fd99::/64"), Manual: true}}
}

// noNamespace is a selector.
type noNamespace struct{}

func (noNamespace) Matches(map[string]string) bool { return false }
func (noNamespace) String() string                 { return "team == 'theirs'" }

// twoUplinks gives the node a second way out.
func twoUplinks(in *Input) {
	in.Host.Links = append(in.Host.Links, link(eth1, "eth1", "", 9000, "10.9.0.1/24"))
	in.Host.Routes = append(in.Host.Routes, model.HostRoute{Prefix: pfx("10.9.0.0/24"), LinkIndex: eth1, Protocol: 2})
	slices.SortFunc(in.Host.Routes, func(a, b model.HostRoute) int { return ComparePrefix(a.Prefix, b.Prefix) })
}

// addressOn moves the node's addresses to another link, and gives the node two more
// uplinks, unnumbered ones, and tunnels.
func addressOn(in *Input, l model.Link) {
	tunnelEnds(in)
	in.Snapshot.Pools[0].VXLAN, in.Snapshot.Pools[1].VXLAN = model.EncapAlways, model.EncapAlways
	in.Host.Links[1].Addresses = []netip.Prefix{pfx("192.168.1.2/24"), pfx("fd09::2/64")}
	l.Addresses = append(l.Addresses, pfx("10.1.0.1/32"), pfx("fd01::1/128"))
	in.Host.Links = slices.DeleteFunc(in.Host.Links, func(o model.Link) bool { return o.Index == l.Index })
	down := link(eth1+1, "eth2", "", 1280)
	down.Up = false
	in.Host.Links = append(in.Host.Links, l, link(eth1, "eth1", "", 1400, "fe80::2/64"), down)
	slices.SortFunc(in.Host.Links, func(a, b model.Link) int { return a.Index - b.Index })
	in.Host.Routes = []model.HostRoute{
		{Prefix: pfx("0.0.0.0/0"), Gateways: ips("192.168.1.1"), LinkIndex: eth0, Protocol: 3},
		{Prefix: pfx("192.168.1.0/24"), LinkIndex: eth0, Protocol: 2},
		{Prefix: pfx("::/0"), Gateways: ips("fd09::1"), LinkIndex: eth0, Protocol: 3},
	}
	in.Learned = []model.Learned{
		learned("10.1.0.2/32", "fe80::9%eth1", "fe80::9%eth2"), learned("10.65.1.0/26", "10.1.0.2"),
		learned("10.65.2.0/26", "192.168.1.7"), learned("fd65::1:0/122", "fd09::9"),
	}
}

// tunnelEnds gives every node the addresses of its tunnels, and node a the
// devices.
func tunnelEnds(in *Input) {
	for i := range in.Snapshot.Nodes {
		n := &in.Snapshot.Nodes[i]
		last := string(rune('1' + i))
		n.IPIPTunnel, n.VXLANTunnel, n.VXLANTunnelV6 = ip("10.65.255."+last), ip("10.65.254."+last), ip("fd65::ffff:"+last)
		n.VXLANMAC, n.VXLANMACV6 = "66:00:00:00:00:0"+last, "66:00:00:00:06:0"+last
	}
	in.Host.Links = append(in.Host.Links, link(tunl0, "tunl0", "ipip", 1480), link(vxlan4, "vxlan.calico", "vxlan", 1450),
		link(vxlan6, "vxlan-v6.calico", "vxlan", 1430))
}

// cases are inputs by the name of their golden.
var cases = map[string]func(in *Input){
	"plain":          func(*Input) {},
	"nothing-synced": func(in *Input) { in.LearnedSynced, in.Snapshot.Synced, in.EndpointsSynced = false, false, false },
	"empty":          func(in *Input) { *in = Input{} },
	"unsorted":       func(in *Input) { slices.Reverse(in.Learned) },
	"ecmp": func(in *Input) {
		twoUplinks(in)
		in.Learned = []model.Learned{
			learned("10.70.0.0/16", "10.1.0.254", "10.9.0.254"),
			learned("10.71.0.0/16", "10.1.0.254", "10.9.0.254"),
			learned("10.72.0.0/16", "10.2.0.3", "10.2.0.4"), // both by way of the same gateway
		}
	},
	"ecmp-one-link-without-carrier": func(in *Input) {
		twoUplinks(in)
		in.Host.Links[len(in.Host.Links)-1].Up = false
		in.Learned = []model.Learned{
			learned("10.70.0.0/16", "10.1.0.254", "10.9.0.254"),
			learned("10.71.0.0/16", "10.9.0.254"),
		}
	},
	"default-by-two-gateways": func(in *Input) {
		twoUplinks(in)
		in.Host.Routes = slices.Insert(in.Host.Routes, 1,
			model.HostRoute{Prefix: pfx("0.0.0.0/0"), Gateways: ips("10.9.0.254"), LinkIndex: eth1, Protocol: 3},
			model.HostRoute{Prefix: pfx("0.0.0.0/0"), Gateways: ips("10.9.0.253"), LinkIndex: eth1, Protocol: 3, Metric: 100})
	},
	"recursive": func(in *Input) {
		in.Host.Routes = in.Host.Routes[1:] // no default
		in.Learned = []model.Learned{
			learned("10.2.0.0/24", "10.1.0.254"), // the other rack, from the router
			learned("10.65.2.0/26", "10.2.0.3"),
			learned("10.65.3.0/26", "10.65.2.1"),
			learned("10.66.0.0/26", "10.67.0.1"), // each by way of the other
			learned("10.67.0.0/26", "10.66.0.1"),
		}
	},
	"unreachable-next-hop": func(in *Input) {
		in.Host.Routes = in.Host.Routes[1:]
		in.Learned = append(in.Learned, learned("10.65.4.0/26", "10.2.0.3"), learned("fd65::9:0/122", "fe80::9"))
	},
	"mapped-next-hop": func(in *Input) {
		in.Learned = append(in.Learned, learned("10.66.0.0/24", "10.1.0.2"), learned("fd66::/64", "10.1.0.2"), learned("fd67::/64", "10.1.0.2"), learned("fd68::/64", "fd01::2", "10.1.0.2"))
		in.PeerRoutes = []PeerRoute{{Peer: ip("fd77::1"), Gateway: ip("10.1.0.2")}}
	},
	"onlink-gateway": func(in *Input) {
		in.Host.Routes[0].Gateways = ips("172.31.1.1")
	},
	"link-local-next-hop": func(in *Input) {
		in.Learned = []model.Learned{learned("10.65.4.0/26", "fe80::9%eth0"), learned("fd65::9:0/122", "fe80::9%eth0"), learned("fd65::a:0/122", "fe80::9%eth7")}
	},
	"unnumbered": func(in *Input) {
		twoUplinks(in)
		down := link(eth1+1, "eth2", "", 1500)
		down.Up = false
		in.Host.Links = append(in.Host.Links, down)
		in.Unnumbered = []string{"eth1", "eth0", "eth2", "eth7", "eth0"}
	},
	"speaking-pods": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", ToHost: "Drop"}}
		in.Speakers = []Speaker{{ip("10.65.0.5"), ip("169.254.0.179")}, {ip("fd65::5"), ip("fd12::179")}, {ip("10.65.0.9"), ip("169.254.0.179")}}
		in.Learned = []model.Learned{
			learned("10.123.0.0/26", "10.65.0.5"), learned("10.123.0.64/26", "10.65.0.5"), learned("10.123.1.0/26", "10.65.0.5", "10.1.0.2"),
			learned("10.123.2.0/26", "10.65.0.6"), // does not speak: the default route
			learned("fd77::/96", "fd65::5"),
		}
	},
	"own-routes-reflected": func(in *Input) {
		in.Learned = []model.Learned{
			learned("10.65.0.0/26", "10.1.0.2"), learned("10.65.9.0/26", "10.1.0.1"),
			learned("10.1.0.0/24", "10.1.0.254"), learned("10.1.0.1/32", "10.1.0.254"), learned("10.65.0.5/32", "10.1.0.2"),
		}
	},
	"inside-own-block": func(in *Input) {
		in.Learned = []model.Learned{
			learned("10.65.0.7/32", "10.1.0.2"), // a pod of ours that lives elsewhere now
			learned("10.65.0.16/28", "10.1.0.2"),
		}
	},
	"shadowing": func(in *Input) {
		in.Learned = []model.Learned{
			learned("0.0.0.0/0", "10.1.0.2"),
			learned("10.1.0.0/25", "10.1.0.2"),   // has the node's address
			learned("10.1.0.240/28", "10.1.0.2"), // has the gateway
			learned("10.1.0.77/32", "10.1.0.2"),  // a service address announced by b
			learned("10.0.0.0/8", "10.1.0.254"),
			learned("::/0", "fd01::2"),
		}
	},
	"not-routable": func(in *Input) {
		in.Learned = []model.Learned{learned("127.0.0.0/8", "10.1.0.2"), learned("224.0.0.0/4", "10.1.0.2"),
			{Prefix: netip.PrefixFrom(ip("10.7.7.7"), 24), Multipath: &model.Multipath{NextHops: ips("10.1.0.2")}}, learned("fe80::/64", "fd01::2")}
	},
	"pods-not-there": func(in *Input) {
		in.Host.Links[2].AdminUp = false
		in.Host.Links = in.Host.Links[:3]
	},
	"same-address-twice": func(in *Input) { in.Endpoints[1].Addresses = ips("10.65.0.5", "10.65.0.6") },
	"nat": func(in *Input) {
		in.Snapshot.Pools = append(in.Snapshot.Pools,
			model.Pool{Name: "inner", CIDR: pfx("10.65.128.0/17")},
			model.Pool{Name: "other", CIDR: pfx("10.60.0.0/16"), NATOutgoing: true, Disabled: true},
			model.Pool{Name: "services", CIDR: pfx("198.51.100.0/24"), NATOutgoing: true, AllowedUses: []model.Use{"LoadBalancer"}})
		in.Snapshot.Pools[1].NATOutgoing = true
		in.Snapshot.Felix = []model.FelixConfiguration{
			{Name: "default", NATPortMin: 1000, NATPortMax: 2000, NATExcludeHosts: true},
			{Name: "node.a", NATPortMin: 10000, NATPortMax: 20000, NATOutgoingAddress: ip("10.1.0.100")},
			{Name: "node.b", NATPortMin: 5, NATPortMax: 6},
		}
	},
	"nat-address-v6": func(in *Input) {
		in.Snapshot.Pools[1].NATOutgoing = true
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", NATOutgoingAddress: ip("fd01::100"), NATPortMin: 10000, NATPortMax: 20000}}
	},
	"felix-settings": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{
			{Name: "default", MTU: 1300, RouteRefreshSeconds: 30, IPForwardingDisabled: true, ToHost: "Drop"}}
	},
	// A pod's advertisements and redirects, where the kernel took them already:
	// also where routes of others may stay.
	"advertising-pod": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", KeepExternalRoutes: true}}
		in.Host.Routes = append(in.Host.Routes,
			model.HostRoute{Prefix: pfx("::/0"), Gateways: ips("fe80::bad"), LinkIndex: podA, Protocol: protocolRA, Metric: 1024},
			model.HostRoute{Prefix: pfx("fd66::1/128"), Gateways: ips("fe80::bad"), LinkIndex: podA, Protocol: protocolRedirect, Metric: 1024},
			model.HostRoute{Prefix: pfx("fd67::/64"), Gateways: ips("fe80::7"), LinkIndex: podB, Protocol: 3, Metric: 1024})
		slices.SortFunc(in.Host.Routes, func(a, b model.HostRoute) int { return ComparePrefix(a.Prefix, b.Prefix) })
	},
	// A BGPPeer has the address of a pod, and BGP listens elsewhere.
	"peer-is-a-pod": func(in *Input) {
		in.Snapshot.BGP = []model.BGPConfiguration{{Name: "default", ListenPort: 1790}, {Name: "node.b", ListenPort: 1791}}
		in.Snapshot.Peers = []model.BGPPeer{{Name: "p", PeerIP: ip("10.65.0.6")}, {Name: "q", PeerIP: ip("10.1.0.254")}}
	},
	// One pod has the name of before, one that of now.
	"interface-prefix": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", InterfacePrefix: "pod,tap"}}
		in.Host.Links[2].Name, in.Endpoints[0].HostInterface = "pod000000000aa", "pod000000000aa"
	},
	"interface-prefix-too-long": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", InterfacePrefix: "calico"}}
	},
	"router-advertisements": func(in *Input) { in.Host.Routes[2].Protocol, in.Host.Routes[3].Protocol = 9, 9 },
	"services": func(in *Input) {
		in.Snapshot.BGP = []model.BGPConfiguration{{Name: "default", ServiceClusterIPs: []netip.Prefix{pfx("10.96.0.0/12"), pfx("fd96::/112")},
			ServiceLoadBalancers: []netip.Prefix{pfx("192.168.9.0/24"), pfx("10.96.1.0/24")}}}
	},
	"services-reject": func(in *Input) {
		in.Snapshot.BGP = []model.BGPConfiguration{{Name: "default", ServiceExternalIPs: []netip.Prefix{pfx("192.168.9.0/24")}}}
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", ServiceLoops: "Reject"}}
	},
	"services-disabled": func(in *Input) {
		in.Snapshot.BGP = []model.BGPConfiguration{{Name: "default", ServiceExternalIPs: []netip.Prefix{pfx("192.168.9.0/24")}}}
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", ServiceLoops: "Disabled"}}
	},
	"spoofing-allowed": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", SpoofingAllowed: true}}
	},
	"felix-fields": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].IPIP, in.Snapshot.Pools[1].VXLAN = model.EncapAlways, model.EncapAlways
		in.Snapshot.Felix = []model.FelixConfiguration{{
			Name: "default", VXLANDisabled: true, DeviceRouteSource: ip("10.1.0.1"), DeviceRouteSourceV6: ip("fd01::99"),
			ExternalNodes: []netip.Prefix{pfx("10.200.0.0/24"), pfx("fd0e::1/128")}, NATInterface: "eth+", NATExcludeHosts: true,
			RoutePriority: 500, RoutePriorityV6: 600,
		}}
		in.Host.Routes = append(in.Host.Routes,
			model.HostRoute{Prefix: pfx("10.65.0.5/32"), LinkIndex: podA, Protocol: 4},
			model.HostRoute{Prefix: pfx("10.77.0.0/24"), Gateways: ips("10.65.0.6"), LinkIndex: podB, Protocol: 12, Metric: 50},
			model.HostRoute{Prefix: pfx("fd65::5/128"), LinkIndex: podA, Protocol: 2, Metric: 256})
	},
	"felix-fields-of-the-node": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].VXLAN = model.EncapAlways
		in.Snapshot.Felix = []model.FelixConfiguration{
			{Name: "default", VXLANDisabled: true, VXLANFromPods: false, FloatingIPs: true},
			{Name: "node.a", VXLANFromPods: true, KeepExternalRoutes: true,
				Raw: map[string]string{"vxlanEnabled": "true", "floatingIPs": "Disabled"}},
		}
		in.Host.Routes = append(in.Host.Routes, model.HostRoute{Prefix: pfx("10.77.0.0/24"), LinkIndex: podB, Protocol: 4})
	},
	// The address is on the loopback, and the routers are reached by several
	// links: one by a default route, one without IPv4 at all, one without carrier.
	// Its pods and the others' are spoken with from the address that is stable.
	"source-address": func(in *Input) {
		addressOn(in, in.Host.Links[0])
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", DeviceRouteSource: ip("10.1.0.1"), DeviceRouteSourceV6: ip("fd01::1")}}
		in.Learned = append(in.Learned, learned("10.66.0.0/24", "192.168.1.7", "192.168.1.8"), learned("10.67.0.0/24", "fe80::9%eth1"), learned("fd67::/64", "fe80::9%eth1"))
	},
	"node-address-on-lo": func(in *Input) { addressOn(in, in.Host.Links[0]) },
	"node-address-on-dummy": func(in *Input) {
		addressOn(in, link(40, "stable", "dummy", 65000))
		in.Host.Routes = slices.DeleteFunc(in.Host.Routes, func(r model.HostRoute) bool { return r.Prefix.Bits() == 0 })
	},
	"node-address-on-lo-no-way-out": func(in *Input) {
		addressOn(in, in.Host.Links[0])
		in.Host.Routes, in.Learned = nil, nil
	},
	"mtu-of-named-links": func(in *Input) {
		tunnelEnds(in)
		twoUplinks(in)
		in.Snapshot.Pools[0].VXLAN = model.EncapAlways
		in.Host.Links = append(in.Host.Links, link(30, "bond0", "bond", 8000), model.Link{Index: 31, Name: "eth2", AdminUp: true, MTU: 1400})
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", MTUInterfaces: "^(eth[12]|bond.*|cali.*|vxlan.*)"}}
	},
	"mtu-of-no-such-link": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", MTUInterfaces: "bond"}, {Name: "node.a", MTUInterfaces: "^ib"}}
	},
	"nat-ports": func(in *Input) {
		in.Snapshot.Pools[1].NATOutgoing = true
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", NATPortMin: 1024, NATPortMax: 2048}}
	},
	"floating": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", FloatingIPs: true}}
		in.Snapshot.Pools = append(in.Snapshot.Pools, floatingPools()...)
		in.Endpoints[0].FloatingIPs = ips("10.99.0.2", "10.99.0.1", "fd99::1", "10.65.0.6")
		in.Endpoints[1].FloatingIPs = ips("10.99.0.1", "10.99.0.3", "fd99::2")
	},
	// What whoever may annotate a pod might like to have.
	"floating-theft": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", FloatingIPs: true}}
		in.Snapshot.Pools = append(in.Snapshot.Pools, floatingPools()...)
		in.Snapshot.Pools = append(in.Snapshot.Pools,
			model.Pool{Name: "everything", CIDR: pfx("0.0.0.0/0"), Manual: true}, model.Pool{Name: "everything6", CIDR: pfx("::/0"), Manual: true},
			model.Pool{Name: "lb", CIDR: pfx("10.98.0.0/24"), Manual: true, AllowedUses: []model.Use{"LoadBalancer"}},
			model.Pool{Name: "theirs", CIDR: pfx("10.97.0.0/24"), Manual: true, NamespaceSelector: noNamespace{}})
		in.Snapshot.Services = []model.Service{{Namespace: "kube-system", Name: "dns", ClusterIPs: ips("10.200.0.10"), ExternalIPs: ips("192.0.2.80"), LoadBalancerIPs: ips("192.0.2.81")}}
		in.Snapshot.BGP = []model.BGPConfiguration{{Name: "default", ServiceClusterIPs: []netip.Prefix{pfx("10.120.0.0/16")}, LocalWorkloadPeerIPv4: ip("192.0.2.179")}}
		in.Snapshot.Peers = []model.BGPPeer{{Name: "tor", PeerIP: ip("10.1.0.253"), ReachableBy: ip("10.1.0.252")}}
		in.Snapshot.Nodes[1].VXLANTunnel = ip("10.65.1.60")
		in.Snapshot.Blocks = append(in.Snapshot.Blocks, model.Block{CIDR: pfx("10.99.0.64/26"), Node: "b", State: model.BlockConfirmed})
		in.Endpoints[1].FloatingIPs = ips("10.200.0.10", "10.120.0.1", "192.0.2.80", "192.0.2.81", "192.0.2.179", // services, BGP's
			"10.1.0.1", "10.2.0.3", "10.65.1.60", "10.1.0.254", "10.1.0.253", "10.1.0.252", // nodes, routers
			"10.65.0.5", "10.65.7.7", "10.99.0.65", // pods, a pool for pods
			"10.98.0.1", "10.97.0.1")
		in.Endpoints[0].FloatingIPs = ips("fd02::3", "fd01::254")
	},
	// Pods of other nodes have them already; the last one is this node's own word.
	"floating-elsewhere": func(in *Input) {
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", FloatingIPs: true}}
		in.Snapshot.Pools = append(in.Snapshot.Pools, floatingPools()...)
		in.Endpoints[0].FloatingIPs = ips("10.99.0.1", "10.99.0.2", "fd99::1", "10.99.0.3", "10.99.0.9")
		in.Learned = append(in.Learned,
			learned("10.99.0.0/29", "10.1.0.2"), learned("10.99.0.1/32", "10.2.0.3"), learned("10.99.0.2/32", "10.1.0.254"),
			learned("10.99.0.3/32", "10.1.0.1"), learned("fd99::1/128", "fd01::2"))
	},
	"floating-disabled": func(in *Input) { in.Endpoints[0].FloatingIPs = ips("10.65.99.2") },
	"ipip-always":       func(in *Input) { tunnelEnds(in); in.Snapshot.Pools[0].IPIP = model.EncapAlways },
	"ipip-cross-subnet": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].IPIP = model.EncapCrossSubnet
	},
	"ipip-device-not-there-yet": func(in *Input) {
		tunnelEnds(in)
		in.Host.Links = in.Host.Links[:4]
		in.Snapshot.Pools[0].IPIP = model.EncapAlways
	},
	"vxlan-always": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].VXLAN, in.Snapshot.Pools[1].VXLAN = model.EncapAlways, model.EncapAlways
		in.Snapshot.Nodes[2].VXLANTunnel = netip.Addr{} // not ready: the direct way is kept
	},
	"vxlan-cross-subnet": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].VXLAN, in.Snapshot.Pools[1].VXLAN = model.EncapCrossSubnet, model.EncapCrossSubnet
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", VXLANPort: 8472, VXLANVNI: 5000, VXLANMTU: 1400}}
	},
	// The moment in which no device has the name, and the ports of both are
	// guarded.
	"vxlan-port-changes": func(in *Input) {
		tunnelEnds(in)
		in.Snapshot.Pools[0].VXLAN = model.EncapAlways
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", VXLANPort: 8472}}
		next := link(vxlan4+10, NextDevice(VXLANDevice), "vxlan", 1450)
		last := link(vxlan4+11, PreviousDevice(VXLANDevice), "vxlan", 1450)
		next.VXLANPort, last.VXLANPort = 8472, 4789
		in.Host.Links = append(slices.DeleteFunc(in.Host.Links, func(l model.Link) bool { return l.Name == VXLANDevice }), next, last)
	},
}

func TestDesired(t *testing.T) {
	for name, change := range cases {
		t.Run(name, func(t *testing.T) {
			in := base()
			change(&in)
			state, problems := Desired(in)
			var b strings.Builder
			text := state.String()
			plain, _ := Desired(base())
			if name != "plain" { // say once what most have in common
				text = strings.Replace(text, plain.Rules.String(), "as in plain\n", 1)
			}
			b.WriteString(text)
			for _, p := range problems {
				b.WriteString("! " + p.Reason + ": " + p.String() + "\n")
			}
			golden(t, name, b.String())

			again, _ := Desired(in)
			if diff := cmp.Diff(state, again, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
				t.Errorf("equal inputs gave different states:\n%s", diff)
			}
			if !slices.IsSortedFunc(state.Routes, Route.Compare) {
				t.Errorf("routes are not sorted")
			}
			for i := 1; i < len(state.Routes); i++ {
				if state.Routes[i].Prefix == state.Routes[i-1].Prefix {
					t.Errorf("two routes for %s", state.Routes[i].Prefix)
				}
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

// TestSharedNextHops holds what makes comparing two states of 50,000 routes
// cheap: routes with the same way out share one slice.
func TestSharedNextHopGroups(t *testing.T) {
	in := base()
	twoUplinks(&in)
	in.Learned = []model.Learned{
		learned("10.70.0.0/16", "10.1.0.254", "10.9.0.254"), learned("10.71.0.0/16", "10.1.0.254", "10.9.0.254"),
		learned("10.72.0.0/16", "10.1.0.2"), learned("10.73.0.0/16", "10.1.0.2"),
	}
	s, _ := Desired(in)
	byPrefix := map[netip.Prefix]*NextHopGroup{}
	for _, r := range s.Routes {
		byPrefix[r.Prefix] = r.NextHopGroup
	}
	for _, pair := range [][2]string{{"10.70.0.0/16", "10.71.0.0/16"}, {"10.72.0.0/16", "10.73.0.0/16"}} {
		if byPrefix[pfx(pair[0])] != byPrefix[pfx(pair[1])] {
			t.Errorf("%v do not share their way", pair)
		}
	}
}

func TestDerivedMAC(t *testing.T) {
	// 66 and the start of `printf node-1 | sha1sum`.
	if got := derivedMAC("node-1"); got != "66:b3:68:28:39:8e" {
		t.Errorf("got %s", got)
	}
}

func TestText(t *testing.T) {
	for want, got := range map[string]string{
		"via 10.0.0.1 dev eth0 onlink": NextHop{Gateway: ip("10.0.0.1"), Device: "eth0", OnLink: true}.String(),
		"dev if7":                      NextHop{Link: 7}.String(),
		"default via inet6 fe80::1 dev eth0 proto 109 src 10.0.0.1 metric 1024": Route{
			Prefix: pfx("0.0.0.0/0"), Metric: 1024,
			NextHopGroup: &NextHopGroup{Source: ip("10.0.0.1"), NextHops: []NextHop{{Gateway: ip("fe80::1"), Device: "eth0"}}}}.String(),
		"unreachable 10.0.0.0/24 proto 109 metric 1024": Route{Prefix: pfx("10.0.0.0/24"), Metric: 1024, NextHopGroup: &NextHopGroup{Type: Unreachable}}.String(),
		"net.ipv4.ip_forward = 1":                       Sysctl{Key: "net/ipv4/ip_forward", Value: "1"}.String(),
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// BenchmarkDesired is the decision over 50,000 learned routes of 100 nodes.
func BenchmarkDesired(b *testing.B) {
	in := base()
	in.Learned = nil
	hops := make([]*model.Multipath, 100)
	for i := range hops {
		hops[i] = &model.Multipath{NextHops: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(2 + i)})}}
	}
	for i := range 50000 {
		in.Learned = append(in.Learned, model.Learned{
			Prefix:    netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(100 + i>>16), byte(i >> 8), byte(i), 0}), 24),
			Multipath: hops[i%len(hops)],
		})
	}
	b.ReportAllocs()
	for b.Loop() {
		if s, _ := Desired(in); len(s.Routes) < 50000 {
			b.Fatal("routes are missing")
		}
	}
}
