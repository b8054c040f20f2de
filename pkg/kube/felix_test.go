package kube

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// routingFields are Calico's fields of routing, tunnels and NAT
// (felix/config/config_params.go).
const routingFields = `ipipEnabled ipipMTU vxlanEnabled vxlanMTU vxlanMTUV6 vxlanPort vxlanVNI
	allowVXLANPacketsFromWorkloads allowIPIPPacketsFromWorkloads mtuIfacePattern requireMTUFile interfacePrefix interfaceExclude
	routeRefreshInterval deviceRouteSourceAddress deviceRouteSourceAddressIPv6 deviceRouteProtocol removeExternalRoutes
	programClusterRoutes ipForwarding routeSource routeSyncDisabled routeTableRanges ipv4NormalRoutePriority
	ipv6NormalRoutePriority ipv4ElevatedRoutePriority ipv6ElevatedRoutePriority liveMigrationRouteConvergenceTime natPortRange
	natOutgoingAddress natOutgoingExclusions iptablesNATOutgoingInterfaceFilter externalNodesList serviceLoopPrevention
	workloadSourceSpoofing floatingIPs awsSrcDstCheck localSubnetL2Reachability nftablesMode nftablesFlowTableOffload
	defaultEndpointToHostAction goGCThreshold goMemoryLimitMB wireguardEnabled wireguardEnabledV6`

func TestEveryRoutingFieldHasAnAnswer(t *testing.T) {
	for _, name := range strings.Fields(routingFields) {
		f, known := felixFields[name]
		if !known || !f.honoured && f.why == "" {
			t.Errorf("%s: neither honoured nor is it said why not", name)
		}
	}
}

// TestEachHonouredFieldHasAnEffect reads each of them in an object and looks
// whether the node is to be another one for it.
func TestEachHonouredFieldHasAnEffect(t *testing.T) {
	values := map[string]string{
		"allowIPIPPacketsFromWorkloads": `true`, "allowVXLANPacketsFromWorkloads": `true`, "defaultEndpointToHostAction": `"drop"`,
		"deviceRouteSourceAddress": `"10.1.0.1"`, "deviceRouteSourceAddressIPv6": `"fd01::1"`, "externalNodesList": `["10.9.0.0/16"]`,
		"floatingIPs": `"Enabled"`, "interfacePrefix": `"tap"`, "ipForwarding": `"Disabled"`, "ipipEnabled": `false`, "ipipMTU": `1400`,
		"iptablesNATOutgoingInterfaceFilter": `"eth+"`, "ipv4NormalRoutePriority": `500`, "ipv6NormalRoutePriority": `500`,
		"mtuIfacePattern": `"^bond"`, "natOutgoingAddress": `"10.1.0.1"`, "natOutgoingExclusions": `"IPPoolsAndHostIPs"`,
		"natPortRange": `"0:1000"`, "removeExternalRoutes": `false`, "routeRefreshInterval": `"30s"`, "serviceLoopPrevention": `"reject"`,
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
		return s.String()
	}
	plain := state("")
	for name, f := range felixFields {
		value, known := values[name]
		if known != f.honoured {
			t.Errorf("%s: honoured: %t; has a value here: %t", name, f.honoured, known)
		}
		if known && state(`{"`+name+`": `+value+`}`) == plain {
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
			BGP: []model.BGPConfiguration{{Name: "default", ServiceClusterIPs: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}},
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

// TestFelixFieldsAreInTheDocs compares the tables of docs/configuration.md with
// what is made of each field.
func TestFelixFieldsAreInTheDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## FelixConfiguration\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string][]string{}
	for _, line := range strings.Split(section, "\n") {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if !strings.HasPrefix(line, "| `") || len(cells) != 3 {
			continue
		}
		for _, name := range strings.Split(cells[0], ",") {
			rows[strings.Trim(name, " `")] = []string{strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])}
		}
	}
	for name, f := range felixFields {
		row, there := rows[name]
		delete(rows, name)
		switch {
		case !there:
			t.Errorf("%s: not in the tables", name)
		case f.honoured:
			if row[0] == "" || row[1] == "" {
				t.Errorf("%s: nothing is said of it", name)
			}
		case strings.ReplaceAll(row[0], "`", "") != strings.Join(f.same, ", ") || row[1] != f.why:
			t.Errorf("%s: the table says %q, the condition %q", name, row, []string{strings.Join(f.same, ", "), f.why})
		}
	}
	for name := range rows {
		t.Errorf("%s: in the tables, and unknown", name)
	}
}

func TestFelixFieldsWithoutEffectAreNamed(t *testing.T) {
	for spec, want := range map[string][]string{
		`{"vxlanMTU": 1400, "ipForwarding": "Disabled", "bpfLogLevel": ""}`:                    nil,
		`{"wireguardEnabled": true}`:                                                           {"spec.wireguardEnabled: true has no effect in Muslin: WireGuard is not supported"},
		`{"wireguardEnabled": false, "nftablesMode": "Auto", "deviceRouteProtocol": 109}`:      nil,
		`{"deviceRouteProtocol": 80}`:                                                          {"spec.deviceRouteProtocol: 80 has no effect in Muslin: every route of Muslin's has protocol 109, by which it is recognised"},
		`{"prometheusMetricsEnabled": true}`:                                                   {"spec.prometheusMetricsEnabled: has no effect in Muslin: remove it"},
		`{"natOutgoingAddress": "10.0.0.1", "routeSource": "WorkloadIPs", "goGCThreshold": 9}`: {"spec.goGCThreshold: 9 has no effect in Muslin: set GOGC in the environment of the DaemonSet", "spec.routeSource: WorkloadIPs has no effect in Muslin: routes of other nodes are learned by BGP"},
	} {
		got := readFelix(obj("default", spec))
		var said []string
		for _, p := range got.problems {
			if p.Reason != reasonUnsupported {
				t.Errorf("%s: reason %s", spec, p.Reason)
			}
			said = append(said, p.Field+": "+p.Message)
		}
		if !got.ok {
			t.Errorf("%s: a field without effect makes the others void", spec)
		}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("%s (-want +got):\n%s", spec, diff)
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
