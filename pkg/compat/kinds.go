package compat

import (
	"maps"
	"strings"
)

const calicoGroup = "projectcalico.org"

// each gives many names one entry.
func each(f Field, names string) map[string]Field {
	out := map[string]Field{}
	for _, n := range strings.Fields(names) {
		out[n] = f
	}
	return out
}

// below gives the fields below each of roots, as of one type.
func below(roots string, fields map[string]Field) map[string]Field {
	out := map[string]Field{}
	for _, root := range strings.Fields(roots) {
		for name, f := range fields {
			out[root+"."+name] = f
		}
	}
	return out
}

func join(parts ...map[string]Field) map[string]Field {
	out := map[string]Field{}
	for _, p := range parts {
		maps.Copy(out, p)
	}
	return out
}

// kinds is the table.
var kinds = append([]Kind{
	{Group: calicoGroup, Name: "FelixConfiguration", Fields: felix},
	{Group: calicoGroup, Name: "BGPConfiguration", Fields: join(
		each(effect, "communities.name communities.value listenPort logSeverityScreen prefixAdvertisements.cidr prefixAdvertisements.communities"),
		each(onDefault, `asNumber nodeToNodeMeshEnabled nodeMeshMaxRestartTime serviceClusterIPs.cidr serviceExternalIPs.cidr
			serviceLoadBalancerIPs.cidr ipv4NormalRoutePriority ipv6NormalRoutePriority localWorkloadPeeringIPV4 localWorkloadPeeringIPV6`),
		password("nodeMeshPassword", onDefault),
		map[string]Field{
			"bindMode":                       {Effect: true, Default: true, Same: []string{"None"}},
			"serviceLoadBalancerAggregation": {Effect: true, Default: true, Same: []string{"Enabled"}},
			"ignoredInterfaces":              without("no prefix of an interface is announced"),
			"programClusterRoutes":           without(byOneHand, "Enabled", "EnabledNoEncapOnly", "Disabled"),
		})},
	{Group: calicoGroup, Name: "BGPPeer", Fields: join(password("password", effect),
		each(effect, `asNumber filters keepOriginalNextHop keepaliveTime localASNumber localWorkloadSelector maxRestartTime nextHopMode node
			nodeSelector numAllowedLocalASNumbers peerIP peerSelector reachableBy reversePeering sourceAddress ttlSecurity`))},
	{Group: calicoGroup, Name: "BGPFilter", Fields: below("exportV4 importV4 exportV6 importV6", each(effect, `action asPathPrefix cidr
		communities.values interface matchOperator operations.addCommunity.value operations.prependASPath.prefix operations.setPriority.value
		peerType prefixLength.max prefixLength.min priority source`))},
	{Group: calicoGroup, Name: "IPPool", Fields: join(
		each(effect, `cidr blockSize natOutgoing disabled disableBGPExport nodeSelector namespaceSelector assignmentMode ipipMode vxlanMode
			allowedUses`),
		map[string]Field{
			"ipip":         without("it is of Calico's API v1: say ipipMode"),
			"nat-outgoing": without("it is of Calico's API v1: say natOutgoing", "false"),
		})},
	{Group: calicoGroup, Name: "IPReservation", Fields: each(effect, "reservedCIDRs")},
	{Group: calicoGroup, Name: "IPAMConfiguration", Fields: join(
		each(onDefault, "strictAffinity autoAllocateBlocks maxBlocksPerHost ipCooldownSeconds"),
		map[string]Field{"kubeVirtVMAddressPersistence": without("a machine that starts anew gets another address; ask for one by the annotation cni.projectcalico.org/ipAddrs", "Disabled")})},
	{Group: calicoGroup, Name: "ClusterInformation", Fields: join(
		each(onDefault, "datastoreReady"),
		each(effect, "clusterGUID clusterType calicoVersion variant"), // read by tools
	)},
	{Group: calicoGroup, Name: "KubeControllersConfiguration", Fields: map[string]Field{
		"controllers.node.leakGracePeriod":                        {Effect: true, Default: true},
		"controllers.node.reconcilerPeriod":                       without("garbage is looked for as often as the cluster's size allows"),
		"controllers.node.syncLabels":                             without("labels of nodes are always Kubernetes'", "Enabled"),
		"controllers.node.hostEndpoint.autoCreate":                {Effect: true, Default: true},
		"controllers.node.hostEndpoint.createDefaultHostEndpoint": {Effect: true, Default: true},
		"controllers.node.hostEndpoint.templates":                 without("a node gets one HostEndpoint, for all its interfaces: write others yourself"),
		"controllers.policy.reconcilerPeriod":                     without(noCopies),
		"controllers.workloadEndpoint.reconcilerPeriod":           without(noCopies),
		"controllers.serviceAccount.reconcilerPeriod":             without(noCopies),
		"controllers.namespace.reconcilerPeriod":                  without(noCopies),
		"controllers.loadBalancer.assignIPs":                      {Effect: true, Default: true},
		"logSeverityScreen":                                       without("set MUSLIN_LOG_LEVEL in the environment of the Deployment", "Info"),
		"healthChecks":                                            without("the controller answers /healthz and /readyz always", "Enabled"),
		"etcdV3CompactionPeriod":                                  without("etcd is the API server's"),
		"prometheusMetricsPort":                                   without("set MUSLIN_HTTP_ADDR in the environment of the Deployment"),
		"debugProfilePort":                                        without("there is no profiling port", "0"),
	}},
	{Group: calicoGroup, Name: "CalicoNodeStatus", Fields: each(effect, "node classes updatePeriodSeconds")},
	{Group: calicoGroup, Name: "BlockAffinity", Fields: each(effect, "cidr deleted node state type")},
	{Group: calicoGroup, Name: "IPAMBlock"},
	{Group: calicoGroup, Name: "IPAMHandle"},

	{Group: "", Name: "Node", Annotations: join(
		each(effect, prefixed("projectcalico.org/", `ASNumber IPv4Address IPv6Address RouteReflectorClusterID IPv4IPIPTunnelAddr
			IPv4VXLANTunnelAddr IPv6VXLANTunnelAddr VXLANTunnelMACAddr VXLANTunnelMACAddrV6`)),
		each(without(noWireguard), prefixed("projectcalico.org/", "IPv4WireguardInterfaceAddr IPv6WireguardInterfaceAddr WireguardPublicKey WireguardPublicKeyV6")),
		each(without("Calico's node wrote it, and nothing here reads it"), "projectcalico.org/Interfaces"),
	)},
	{Group: "", Name: "Namespace", Annotations: join(
		each(effect, prefixed(cni, "ipv4pools ipv6pools ipFamilies")),
		each(without("it is read on pods alone"), prefixed(cni, "ipAddrs ipAddrsNoIpam hwAddr allowedSourcePrefixes floatingIPs")),
	)},
	{Group: "", Name: "Pod", Annotations: each(effect, prefixed(cni, `ipv4pools ipv6pools ipFamilies ipAddrs ipAddrsNoIpam hwAddr
		allowedSourcePrefixes floatingIPs podIP podIPs containerID`))},
	{Group: "", Name: "Service", Annotations: each(effect, prefixed("projectcalico.org/", "ipv4pools ipv6pools loadBalancerIPs"))},

	{Group: calicoGroup, Name: "Profile", Why: "namespaces and service accounts are read themselves"},
	{Group: calicoGroup, Name: "StagedNetworkPolicy", Why: staged},
	{Group: calicoGroup, Name: "StagedGlobalNetworkPolicy", Why: staged},
	{Group: calicoGroup, Name: "StagedKubernetesNetworkPolicy", Why: staged},
	{Group: calicoGroup, Name: "WorkloadEndpoint", Why: "endpoints are the pods' own; muslinctl get workloadendpoints shows them"},
	{Group: calicoGroup, Name: "QoSPolicy", Why: "Muslin marks no packet's DSCP"},
	{Group: "operator.tigera.io", Name: "Installation", Why: operator},
	{Group: "operator.tigera.io", Name: "APIServer", Why: operator},
	{Group: "operator.tigera.io", Name: "Goldmane", Why: operator},
	{Group: "operator.tigera.io", Name: "Whisker", Why: operator},
	{Group: "operator.tigera.io", Name: "TigeraStatus", Why: operator},
	{Group: "operator.tigera.io", Name: "ImageSet", Why: operator},
}, policy...)

// password is a reference to a Secret.
func password(root string, f Field) map[string]Field {
	return below(root+".secretKeyRef", join(each(f, "key name"),
		map[string]Field{"optional": without("a session whose password is missing stays down", "false")}))
}

// bookkeeping are annotations that Calico's tools leave on objects.
var bookkeeping = map[string]bool{"projectcalico.org/metadata": true, "projectcalico.org/kube-labels": true, "projectcalico.org/labels": true, "projectcalico.org/annotations": true}

func prefixed(prefix, names string) string {
	list := strings.Fields(names)
	for i := range list {
		list[i] = prefix + list[i]
	}
	return strings.Join(list, " ")
}

const (
	cni      = "cni.projectcalico.org/"
	noCopies = "nothing is copied into a datastore of its own"
	staged   = "nothing enforces it; muslinctl preview says what the policy would do that it stands for"
	operator = "there is no operator: kubectl apply -k manifests installs Muslin"
)
