package kind

import (
	"reflect"
	"slices"
	"strings"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
)

// table has the columns of calicoctl, in its order.
var table = []*Kind{
	{
		Name: "BGPConfiguration", Plural: "bgpconfigurations", Aliases: []string{"bgpconfig", "bgpconfigs"},
		Type:    reflect.TypeFor[v3.BGPConfiguration](),
		Columns: []Column{name, field("LOGSEVERITY", "spec.logSeverityScreen", "-"), field("MESHENABLED", "spec.nodeToNodeMeshEnabled", "-"), field("ASNUMBER", "spec.asNumber", "-")},
	},
	{
		Name: "BGPFilter", Plural: "bgpfilters", Aliases: []string{},
		Type:    reflect.TypeFor[v3.BGPFilter](),
		Columns: []Column{name, count("NUMEXPORTV4", "spec.exportV4"), count("NUMIMPORTV4", "spec.importV4"), count("NUMEXPORTV6", "spec.exportV6"), count("NUMIMPORTV6", "spec.importV6")},
	},
	{
		Name: "BGPPeer", Plural: "bgppeers", Aliases: []string{"bgpp", "bp"},
		Type: reflect.TypeFor[v3.BGPPeer](),
		Columns: []Column{
			name, first("PEERIP", "", "spec.peerIP", "spec.peerSelector"),
			first("NODE", "(global)", "spec.node", "spec.nodeSelector"), field("ASN", "spec.asNumber", "0"),
		},
	},
	{
		Name: "BlockAffinity", Plural: "blockaffinities", Aliases: []string{"affinity", "affinities"}, ReadOnly: true,
		Type:    reflect.TypeFor[v3.BlockAffinity](),
		Columns: []Column{name, field("CIDR", "spec.cidr", ""), field("NODE", "spec.node", ""), field("STATE", "spec.state", "confirmed")},
	},
	{
		Name: "CalicoNodeStatus", Plural: "caliconodestatuses", Aliases: []string{"nodestatus", "nodestatuses"},
		Type:    reflect.TypeFor[v3.CalicoNodeStatus](),
		Columns: []Column{name, field("NODE", "spec.node", "")},
		Wide:    []Column{name, field("NODE", "spec.node", ""), field("CLASSES", "spec.classes", "")},
	},
	{
		Name: "ClusterInformation", Plural: "clusterinformations", Aliases: []string{"clusterinfo", "clusterinfos"}, Single: true,
		Type: reflect.TypeFor[v3.ClusterInformation](),
		Columns: []Column{
			name, field("CLUSTERGUID", "spec.clusterGUID", ""), field("CLUSTERTYPE", "spec.clusterType", ""),
			field("CALICOVERSION", "spec.calicoVersion", ""), field("DATASTOREREADY", "spec.datastoreReady", "false"),
		},
	},
	{
		Name: "FelixConfiguration", Plural: "felixconfigurations", Aliases: []string{"felixconfig", "felixconfigs"},
		Type: reflect.TypeFor[v3.FelixConfiguration](), Columns: []Column{name},
	},
	{
		Name: "GlobalNetworkPolicy", Plural: "globalnetworkpolicies", Aliases: []string{"gnp", "gnps"},
		Type:    reflect.TypeFor[v3.GlobalNetworkPolicy](),
		Columns: []Column{name, tierOf},
		Wide:    []Column{name, tierOf, field("ORDER", "spec.order", "<none>"), field("SELECTOR", "spec.selector", "")},
	},
	{
		Name: "GlobalNetworkSet", Plural: "globalnetworksets", Aliases: []string{"gnetset", "gnetsets"},
		Type:    reflect.TypeFor[v3.GlobalNetworkSet](),
		Columns: []Column{name}, Wide: []Column{name, netsOf},
	},
	{
		Name: "HostEndpoint", Plural: "hostendpoints", Aliases: []string{"hep", "heps"},
		Type:    reflect.TypeFor[v3.HostEndpoint](),
		Columns: []Column{name, field("NODE", "spec.node", "")},
		Wide: []Column{
			name, field("NODE", "spec.node", ""), field("INTERFACE", "spec.interfaceName", ""), field("IPS", "spec.expectedIPs", ""),
			field("PROFILES", "spec.profiles", ""),
		},
	},
	{
		Name: "IPAMBlock", Plural: "ipamblocks", Aliases: []string{"block", "blocks"}, ReadOnly: true,
		Type:    reflect.TypeFor[v3.IPAMBlock](),
		Columns: []Column{name, field("CIDR", "spec.cidr", ""), field("AFFINITY", "spec.affinity", "")},
	},
	{
		Name: "IPAMConfiguration", Plural: "ipamconfigurations", Aliases: []string{"ipamconfig", "ipamconfigs"}, Single: true,
		Type:    reflect.TypeFor[v3.IPAMConfiguration](),
		Columns: []Column{name, field("STRICTAFFINITY", "spec.strictAffinity", "false"), field("AUTOALLOCATEBLOCKS", "spec.autoAllocateBlocks", "true")},
		Wide: []Column{
			name, field("STRICTAFFINITY", "spec.strictAffinity", "false"), field("AUTOALLOCATEBLOCKS", "spec.autoAllocateBlocks", "true"),
			field("MAXBLOCKSPERHOST", "spec.maxBlocksPerHost", "0"),
		},
	},
	{
		Name: "IPAMHandle", Plural: "ipamhandles", Aliases: []string{"handle", "handles"}, ReadOnly: true,
		Type: reflect.TypeFor[v3.IPAMHandle](), Columns: []Column{name, field("ID", "spec.handleID", "")},
	},
	{
		Name: "IPPool", Plural: "ippools", Aliases: []string{"ipp", "pool", "pools"},
		Type:    reflect.TypeFor[v3.IPPool](),
		Columns: []Column{name, field("CIDR", "spec.cidr", ""), field("SELECTOR", "spec.nodeSelector", "all()")},
		Wide: []Column{
			name, field("CIDR", "spec.cidr", ""), field("NAT", "spec.natOutgoing", "false"),
			field("IPIPMODE", "spec.ipipMode", "Never"), field("VXLANMODE", "spec.vxlanMode", "Never"),
			field("DISABLED", "spec.disabled", "false"), field("DISABLEBGPEXPORT", "spec.disableBGPExport", "false"),
			field("SELECTOR", "spec.nodeSelector", "all()"), field("ASSIGNMENTMODE", "spec.assignmentMode", "Automatic"),
		},
	},
	{
		Name: "IPReservation", Plural: "ipreservations", Aliases: []string{"reservation", "reservations"},
		Type:    reflect.TypeFor[v3.IPReservation](),
		Columns: []Column{name}, Wide: []Column{name, field("CIDRS", "spec.reservedCIDRs", "")},
	},
	{
		Name: "KubeControllersConfiguration", Plural: "kubecontrollersconfigurations", Aliases: []string{"kubecontrollersconfig", "kcc"}, Single: true,
		Type: reflect.TypeFor[v3.KubeControllersConfiguration](), Columns: []Column{name},
	},
	{
		Name: "NetworkPolicy", Plural: "networkpolicies", Aliases: []string{"np", "nps", "policy", "policies", "pol", "pols"}, Namespaced: true,
		Type:    reflect.TypeFor[v3.NetworkPolicy](),
		Columns: []Column{name, tierOf},
		Wide:    []Column{name, tierOf, field("ORDER", "spec.order", "<none>"), field("SELECTOR", "spec.selector", "")},
	},
	{
		Name: "NetworkSet", Plural: "networksets", Aliases: []string{"netset", "netsets"}, Namespaced: true,
		Type:    reflect.TypeFor[v3.NetworkSet](),
		Columns: []Column{name}, Wide: []Column{name, netsOf},
	},
	{
		Name: "Node", Plural: "nodes", Aliases: []string{"no"}, Core: true,
		Type:    reflect.TypeFor[Node](),
		Columns: []Column{name},
		Wide:    []Column{name, field("ASN", "spec.bgp.asNumber", "(64512)"), field("IPV4", "spec.bgp.ipv4Address", ""), field("IPV6", "spec.bgp.ipv6Address", "")},
	},
	{
		Name: "StagedGlobalNetworkPolicy", Plural: "stagedglobalnetworkpolicies", Aliases: []string{"sgnp", "sgnps"},
		Type:    reflect.TypeFor[v3.StagedGlobalNetworkPolicy](),
		Columns: []Column{name, tierOf, actionOf},
		Wide:    []Column{name, tierOf, actionOf, field("ORDER", "spec.order", "<none>"), field("SELECTOR", "spec.selector", "")},
	},
	{
		Name: "StagedKubernetesNetworkPolicy", Plural: "stagedkubernetesnetworkpolicies", Aliases: []string{"sknp", "sknps"}, Namespaced: true,
		Type:    reflect.TypeFor[v3.StagedKubernetesNetworkPolicy](),
		Columns: []Column{name, actionOf},
	},
	{
		Name: "StagedNetworkPolicy", Plural: "stagednetworkpolicies", Aliases: []string{"snp", "snps"}, Namespaced: true,
		Type:    reflect.TypeFor[v3.StagedNetworkPolicy](),
		Columns: []Column{name, tierOf, actionOf},
		Wide:    []Column{name, tierOf, actionOf, field("ORDER", "spec.order", "<none>"), field("SELECTOR", "spec.selector", "")},
	},
	{
		Name: "Tier", Plural: "tiers", Aliases: []string{},
		Type:    reflect.TypeFor[v3.Tier](),
		Columns: []Column{name, field("ORDER", "spec.order", "<none>")},
	},
	{
		Name: "WorkloadEndpoint", Plural: "workloadendpoints", Aliases: []string{"wep", "weps"}, Core: true, Of: "pods", Namespaced: true, ReadOnly: true,
		Type:    reflect.TypeFor[WorkloadEndpoint](),
		Columns: endpointColumns,
		Wide:    slices.Concat([]Column{name}, endpointColumns, []Column{field("PROFILES", "spec.profiles", ""), externals}),
	},
}

var endpointColumns = []Column{
	field("WORKLOAD", "spec.pod", ""), field("NODE", "spec.node", ""), field("NETWORKS", "spec.ipNetworks", ""), field("INTERFACE", "spec.interfaceName", ""),
}

var externals = Column{"NATS", func(o map[string]any) string {
	var out []string
	list, _ := At(o, "spec.ipNATs").([]any)
	for _, x := range list {
		m, _ := x.(map[string]any)
		out = append(out, Text(m, "externalIP", ""))
	}
	return strings.Join(out, ",")
}}

var (
	tierOf = field("TIER", "spec.tier", "default")

	actionOf = field("ACTION", "spec.stagedAction", "Set")
	netsOf   = Column{"NETS", func(o map[string]any) string {
		text := Text(o, "spec.nets", "")
		if len(text) > longestNets {
			return text[:longestNets-3] + "..."
		}
		return text
	}}
	namespace = field("NAMESPACE", "metadata.namespace", "")
)

// longestNets is how much of a network set a table shows, as calicoctl.
const longestNets = 80
