package kube

import (
	"fmt"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// felixField says what Muslin makes of a FelixConfiguration field.
type felixField struct {
	// honoured fields have an effect.
	honoured bool
	// same are the values that ask for what Muslin does anyway.
	same []string
	// why says what to do instead, for a field without effect.
	why string
}

var (
	honoured  = felixField{honoured: true}
	wireguard = felixField{same: []string{"false"}, why: "WireGuard is not supported"}
)

// felixFields are the fields that concern routes, tunnels, NAT, MTU, sysctls and
// logging (Calico's config_params.go). Any other field is of a part of Calico
// that Muslin does not have.
var felixFields = map[string]felixField{
	"allowIPIPPacketsFromWorkloads": honoured, "allowVXLANPacketsFromWorkloads": honoured,
	"defaultEndpointToHostAction": honoured, "deviceRouteSourceAddress": honoured, "deviceRouteSourceAddressIPv6": honoured,
	"externalNodesList": honoured, "floatingIPs": honoured, "interfacePrefix": honoured, "ipForwarding": honoured,
	"ipipEnabled": honoured, "ipipMTU": honoured, "iptablesNATOutgoingInterfaceFilter": honoured,
	"ipv4NormalRoutePriority": honoured, "ipv6NormalRoutePriority": honoured,
	"mtuIfacePattern": honoured, "natOutgoingAddress": honoured, "natOutgoingExclusions": honoured, "natPortRange": honoured,
	"removeExternalRoutes": honoured, "routeRefreshInterval": honoured, "serviceLoopPrevention": honoured,
	"vxlanEnabled": honoured, "vxlanMTU": honoured, "vxlanMTUV6": honoured, "vxlanPort": honoured, "vxlanVNI": honoured,
	"workloadSourceSpoofing": honoured,

	"awsSrcDstCheck":                    {same: []string{"DoNothing"}, why: "set the check on the instances themselves"},
	"deviceRouteProtocol":               {same: []string{fmt.Sprint(model.RouteProtocol)}, why: fmt.Sprintf("every route of Muslin's has protocol %d, by which it is recognised", model.RouteProtocol)},
	"goGCThreshold":                     {why: "set GOGC in the environment of the DaemonSet"},
	"goMaxProcs":                        {why: "set GOMAXPROCS in the environment of the DaemonSet"},
	"goMemoryLimitMB":                   {same: []string{"-1"}, why: "set GOMEMLIMIT in the environment of the DaemonSet"},
	"interfaceExclude":                  {same: []string{"kube-ipvs0"}, why: "no interface is taken for a pod's but those that Muslin made"},
	"ipv4ElevatedRoutePriority":         {why: "routes have one priority; live migration is not supported"},
	"ipv6ElevatedRoutePriority":         {why: "routes have one priority; live migration is not supported"},
	"liveMigrationRouteConvergenceTime": {why: "live migration is not supported"},
	"localSubnetL2Reachability":         {same: []string{"Disabled"}, why: "announce pods by BGP instead"},
	"logSeverityScreen":                 {same: []string{"Info"}, why: "set MUSLIN_LOG_LEVEL in the environment of the DaemonSet"},
	"nftablesFlowTableOffload":          {same: []string{"Disabled"}, why: "flow tables are not supported"},
	"nftablesMode":                      {same: []string{"Auto", "Enabled"}, why: "rules are nftables' always"},
	"programClusterRoutes":              {same: []string{"Enabled", "EnabledIPIPOnly"}, why: "Muslin writes every route, and no other daemon does"},
	"requireMTUFile":                    {same: []string{"false"}, why: "no file is read or written for the MTU"},
	"routeSource":                       {same: []string{"CalicoIPAM"}, why: "routes of other nodes are learned by BGP"},
	"routeSyncDisabled":                 {same: []string{"false"}, why: "routes are always kept"},
	"routeTableRange":                   {why: "routes are in the main table only"},
	"routeTableRanges":                  {why: "routes are in the main table only"},
	"wireguardEnabled":                  wireguard, "wireguardEnabledV6": wireguard, "wireguardHostEncryptionEnabled": wireguard,
	"wireguardInterfaceName": wireguard, "wireguardInterfaceNameV6": wireguard, "wireguardKeepAlive": wireguard,
	"wireguardListeningPort": wireguard, "wireguardListeningPortV6": wireguard, "wireguardMTU": wireguard, "wireguardMTUV6": wireguard,
	"wireguardRoutingRulePriority": wireguard, "wireguardThreadingEnabled": wireguard,

	// No part of Calico's, and true of Muslin anyway.
	"bpfEnabled":  {same: []string{"false"}, why: "there is no eBPF data plane"},
	"bpfLogLevel": {same: []string{""}, why: "there is no eBPF data plane"},
}

// check says why the value of a field has no effect, nothing if it has one or
// needs none.
func (f felixField) check(value string) string {
	switch {
	case f.honoured || slices.ContainsFunc(f.same, func(same string) bool { return strings.EqualFold(same, value) }):
		return ""
	case f.why == "":
		return "has no effect in Muslin: remove it"
	}
	return fmt.Sprintf("%s has no effect in Muslin: %s", value, f.why)
}
