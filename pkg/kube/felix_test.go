package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestEachHonouredFieldHasAnEffect reads each of them in an object and looks
// whether the node is to be another one for it.
func TestEachHonouredFieldHasAnEffect(t *testing.T) {
	values := map[string]string{
		"allowIPIPPacketsFromWorkloads": `true`, "allowVXLANPacketsFromWorkloads": `true`, "defaultEndpointToHostAction": `"drop"`,
		"deviceRouteSourceAddress": `"10.1.0.1"`, "deviceRouteSourceAddressIPv6": `"fd01::1"`, "externalNodesList": `["10.9.0.0/16"]`,
		"failsafeInboundHostPorts": `[{"port": 22}]`, "failsafeInboundHostPorts.port": `[{"port": 23}]`,
		"failsafeInboundHostPorts.protocol": `[{"port": 22, "protocol": "udp"}]`, "failsafeInboundHostPorts.net": `[{"port": 22, "net": "10.0.0.0/8"}]`,
		"failsafeOutboundHostPorts": `[{"port": 22}]`, "failsafeOutboundHostPorts.port": `[{"port": 23}]`,
		"failsafeOutboundHostPorts.protocol": `[{"port": 22, "protocol": "udp"}]`, "failsafeOutboundHostPorts.net": `[{"port": 22, "net": "10.0.0.0/8"}]`,
		"floatingIPs": `"Enabled"`, "interfacePrefix": `"tap"`, "ipForwarding": `"Disabled"`, "ipipEnabled": `false`, "ipipMTU": `1400`,
		"iptablesNATOutgoingInterfaceFilter": `"eth+"`, "ipv4NormalRoutePriority": `500`, "ipv6NormalRoutePriority": `500`,
		"mtuIfacePattern": `"^bond"`, "natOutgoingAddress": `"10.1.0.1"`, "natOutgoingExclusions": `"IPPoolsAndHostIPs"`,
		"natPortRange": `"0:1000"`, "programClusterRoutes": `"EnabledIPIPOnly"`, "removeExternalRoutes": `false`, "routeRefreshInterval": `"30s"`, "serviceLoopPrevention": `"reject"`,
		"vxlanEnabled": `false`, "vxlanMTU": `1400`, "vxlanMTUV6": `1400`, "vxlanPort": `8472`, "vxlanVNI": `5000`,
		"workloadSourceSpoofing": `"any"`,
	}
	state := func(spec string) string {
		in := nodeOfEverything()
		if spec != "" {
			got := readFelix(obj("default", spec))
			if !got.ok || len(got.problems) > 0 {
				t.Fatalf("%s: %v", spec, got.problems)
			}
			in.Snapshot.Felix = []model.FelixConfiguration{got.value}
		}
		s, _ := felix.Desired(in)
		inbound, outbound, _ := felix.Failsafe(in.Snapshot, in.Self)
		return s.String() + fmt.Sprint(inbound, outbound)
	}
	felixKind, _ := compat.Find("projectcalico.org", "FelixConfiguration")
	for name, f := range felixKind.Fields {
		value, known := values[name]
		if known != f.Effect {
			t.Errorf("%s: has an effect: %t; has a value here: %t", name, f.Effect, known)
		}
		field, _, below := strings.Cut(name, ".") // the value is the whole field's
		without := ""
		if below {
			without = `{"` + field + `": ` + values[field] + `}`
		}
		if known && state(`{"`+field+`": `+value+`}`) == state(without) {
			t.Errorf("%s: %s: nothing of the node is to be another", name, value)
		}
	}
}

// nodeOfEverything is a node on which every field can have an effect.
func nodeOfEverything() felix.Input {
	node := func(name model.NodeName, v4, v6, ipip, vxlan, vxlan6 string) model.Node {
		return model.Node{Name: name, IPv4: netip.MustParsePrefix(v4), IPv6: netip.MustParsePrefix(v6), IPIPTunnel: netip.MustParseAddr(ipip),
			VXLANTunnel: netip.MustParseAddr(vxlan), VXLANTunnelV6: netip.MustParseAddr(vxlan6)}
	}
	link := func(index int, name string, mtu int, addresses ...netip.Prefix) model.Link {
		return model.Link{Index: index, Name: name, Up: true, AdminUp: true, MTU: mtu, Addresses: addresses}
	}
	pod := netip.MustParseAddr("10.65.0.5")
	return felix.Input{
		Self: "a", LearnedSynced: true, HostSynced: true, EndpointsSynced: true,
		Snapshot: model.Snapshot{
			Synced: true,
			Nodes: []model.Node{node("a", "10.1.0.1/24", "fd01::1/64", "10.65.0.1", "10.66.0.1", "fd65::1"),
				node("b", "10.1.0.2/24", "fd01::2/64", "10.65.1.1", "10.66.1.1", "fd65::1:1")},
			Pools: []model.Pool{
				{Name: "ipip", CIDR: netip.MustParsePrefix("10.65.0.0/16"), NATOutgoing: true, IPIP: model.EncapAlways},
				{Name: "vxlan", CIDR: netip.MustParsePrefix("10.66.0.0/16"), VXLAN: model.EncapAlways},
				{Name: "vxlan6", CIDR: netip.MustParsePrefix("fd65::/48"), VXLAN: model.EncapAlways},
			},
			Blocks:    []model.Block{{CIDR: netip.MustParsePrefix("10.65.1.0/26"), Node: "b", State: model.BlockConfirmed}},
			LentKnown: true,
			BGP:       []model.BGPConfiguration{{Name: "default", ServiceClusterIPs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}},
		},
		Host: model.Host{
			Links: []model.Link{
				link(2, "eth0", 1500, netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd01::1/64")),
				link(3, "bond0", 1400), link(10, "cali1", 1500), link(20, "tunl0", 1480), link(21, "vxlan.calico", 1450), link(22, "vxlan-v6.calico", 1430),
			},
			Routes: []model.HostRoute{{Prefix: netip.MustParsePrefix("10.77.0.0/24"), LinkIndex: 10, Protocol: 4}},
		},
		Endpoints: []model.Endpoint{{
			ContainerID: "1", Interface: "eth0", Namespace: "ns", Pod: "a", HostInterface: "cali1",
			Addresses:      []netip.Addr{pod, netip.MustParseAddr("fd65::5")},
			SourcePrefixes: []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")}, FloatingIPs: []netip.Addr{netip.MustParseAddr("10.65.9.9")},
		}},
	}
}

func TestFelixFieldsWithoutEffectAreNamed(t *testing.T) {
	for spec, want := range map[string][]string{
		`{"vxlanMTU": 1400, "ipForwarding": "Disabled", "bpfLogLevel": ""}`:                    nil,
		`{"wireguardEnabled": true}`:                                                           {"spec.wireguardEnabled: true has no effect in Muslin: WireGuard is not supported"},
		`{"wireguardEnabled": false, "nftablesMode": "Auto", "deviceRouteProtocol": 109}`:      nil,
		`{"deviceRouteProtocol": 80}`:                                                          {"spec.deviceRouteProtocol: 80 has no effect in Muslin: every route of Muslin's has protocol 109, by which it is recognised"},
		`{"prometheusMetricsEnabled": true, "prometheusMetricsPort": 9091}`:                    {"spec.prometheusMetricsPort: 9091 has no effect in Muslin: health and metrics are at MUSLIN_HTTP_ADDR of the DaemonSet"},
		`{"fieldOfTomorrow": {"a": 1}, "bpfConntrackTimeouts": {"udpTimeout": "1s"}}`:          {"spec.bpfConntrackTimeouts: has no effect in Muslin: there is no eBPF data plane", "spec.fieldOfTomorrow: is no field that Muslin knows: it has no effect"},
		`{"natOutgoingAddress": "10.0.0.1", "routeSource": "WorkloadIPs", "goGCThreshold": 9}`: {"spec.goGCThreshold: 9 has no effect in Muslin: set GOGC in the environment of the DaemonSet", "spec.routeSource: WorkloadIPs has no effect in Muslin: routes of other nodes are learned by BGP, or computed from IPAM (programClusterRoutes)"},
	} {
		got := readFelix(obj("default", spec))
		var stated []string
		for _, p := range got.problems {
			if p.Reason != compat.ReasonUnsupported {
				t.Errorf("%s: reason %s", spec, p.Reason)
			}
			stated = append(stated, p.Field+": "+p.Message)
		}
		if !got.ok {
			t.Errorf("%s: a field without effect makes the others void", spec)
		}
		if diff := cmp.Diff(want, stated); diff != "" {
			t.Errorf("%s (-want +got):\n%s", spec, diff)
		}
	}
}

// TestFailsafePorts: a list that is empty is not one that is absent, and port 0 is not
// all ports.
func TestFailsafePorts(t *testing.T) {
	for spec, want := range map[string][]model.FailsafePort{
		`{}`:                               nil,
		`{"failsafeInboundHostPorts": []}`: {},
		`{"failsafeInboundHostPorts": [{"port": 22}, {"protocol": "UDP", "port": 68, "net": "192.0.2.0/24"}, {"protocol": "sctp", "port": 1, "net": "fd00::1"}]}`: {
			{Protocol: 6, Port: 22}, {Protocol: 17, Port: 68, Net: netip.MustParsePrefix("192.0.2.0/24")}, {Protocol: 132, Port: 1, Net: netip.MustParsePrefix("fd00::1/128")},
		},
	} {
		got := readFelix(obj("default", spec))
		if !got.ok || len(got.problems) > 0 || (got.value.FailsafeIn == nil) != (want == nil) || !slices.Equal(got.value.FailsafeIn, want) {
			t.Errorf("%s: %+v, want %+v: %v", spec, got.value.FailsafeIn, want, got.problems)
		}
	}
	for _, bad := range []string{`{"port": 0}`, `{"protocol": "icmp", "port": 1}`, `{"port": 1, "net": "x"}`} {
		if got := readFelix(obj("default", `{"failsafeOutboundHostPorts": [`+bad+`]}`)); len(got.problems) != 1 {
			t.Errorf("%s: %v", bad, got.problems)
		}
	}
}

func TestFelixFieldsAreRead(t *testing.T) {
	got := readFelix(obj("default", `{"ipipEnabled": false, "vxlanEnabled": false, "deviceRouteSourceAddress": "10.1.0.1",
		"deviceRouteSourceAddressIPv6": "fd01::1", "removeExternalRoutes": false, "externalNodesList": ["10.2.0.0/16", "10.3.0.1"],
		"allowVXLANPacketsFromWorkloads": true, "allowIPIPPacketsFromWorkloads": true, "floatingIPs": "Enabled",
		"iptablesNATOutgoingInterfaceFilter": "eth+", "ipv4NormalRoutePriority": 500, "ipv6NormalRoutePriority": 600}`))
	if !got.ok || len(got.problems) > 0 {
		t.Fatalf("%v %v", got.ok, got.problems)
	}
	got.value.Raw = nil
	want := model.FelixConfiguration{
		Name: "default", IPIPDisabled: true, VXLANDisabled: true, KeepExternalRoutes: true, FloatingIPs: true,
		DeviceRouteSource: netip.MustParseAddr("10.1.0.1"), DeviceRouteSourceV6: netip.MustParseAddr("fd01::1"),
		ExternalNodes: []netip.Prefix{netip.MustParsePrefix("10.2.0.0/16"), netip.MustParsePrefix("10.3.0.1/32")},
		VXLANFromPods: true, IPIPFromPods: true, NATInterface: "eth+", RoutePriority: 500, RoutePriorityV6: 600,
	}
	if diff := cmp.Diff(want, got.value, compareValues); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, spec := range []string{`{"mtuIfacePattern": "eth("}`, `{"externalNodesList": ["10.2.0.0/16", "x"]}`, `{"iptablesNATOutgoingInterfaceFilter": "a*b"}`, `{"floatingIPs": "On"}`} {
		if got := readFelix(obj("default", spec)); got.ok || !slices.ContainsFunc(got.problems, func(p model.Problem) bool { return p.Reason == reasonInvalid }) {
			t.Errorf("%s is taken: %v", spec, got.problems)
		}
	}
}

// TestFelixAnnotations: one for the cluster, and what a node says over it; what cannot be read makes the
// object void, so that its last good version stays.
func TestFelixAnnotations(t *testing.T) {
	const on, mask = AnnotationEstablished, AnnotationEpochMask
	read := func(name string, annotations map[string]string) reading[model.FelixConfiguration] {
		o := obj(name, `{}`)
		o.Annotations = annotations
		return readFelix(o)
	}
	for _, c := range []struct {
		cluster, node map[string]string
		on            bool
		mask          uint32
	}{
		{nil, nil, false, 0},
		{map[string]string{on: "Reevaluate"}, nil, true, 0},
		{map[string]string{on: "reevaluate", mask: "0xff001f00"}, nil, true, 0xff001f00},
		{map[string]string{on: "Reevaluate", mask: "4278190080"}, map[string]string{mask: "0xf0"}, true, 0xf0},
		{map[string]string{on: "Reevaluate"}, map[string]string{on: "Keep"}, false, 0},
		{nil, map[string]string{on: "Reevaluate"}, true, 0},
	} {
		cluster, node := read("default", c.cluster), read("node.a", c.node)
		if len(cluster.problems)+len(node.problems) > 0 {
			t.Errorf("%v %v: %v %v", c.cluster, c.node, cluster.problems, node.problems)
		}
		if on, mask := felix.Epochs([]model.FelixConfiguration{node.value, cluster.value}, "a"); on != c.on || mask != c.mask {
			t.Errorf("%v %v: %t, %#x", c.cluster, c.node, on, mask)
		}
	}
	for key, text := range map[string]string{on: "Cut", mask: "0x7"} {
		if got := read("default", map[string]string{key: text}); got.ok || len(got.problems) != 1 || got.problems[0].Field != annotationField(key) {
			t.Errorf("%s: %s: %t %v", key, text, got.ok, got.problems)
		}
	}
	if got := read("default", map[string]string{mask: "0x1ff000000"}); got.ok {
		t.Error("a mask of 33 bits is taken")
	}
	if got := read("default", map[string]string{"muslin.io/established": "Keep"}); !got.ok || len(got.problems) != 1 {
		t.Errorf("one that does not exist: %t %v", got.ok, got.problems)
	}
}
