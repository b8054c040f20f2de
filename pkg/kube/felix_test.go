package kube

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

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
	for _, spec := range []string{`{"externalNodesList": ["10.2.0.0/16", "x"]}`, `{"iptablesNATOutgoingInterfaceFilter": "a*b"}`, `{"floatingIPs": "On"}`} {
		if got := readFelix(obj("default", spec)); got.ok || !slices.ContainsFunc(got.problems, func(p model.Problem) bool { return p.Reason == reasonInvalid }) {
			t.Errorf("%s is taken: %v", spec, got.problems)
		}
	}
}
