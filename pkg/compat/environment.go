package compat

// configMaps are those of Calico's manifests whose keys are settings.
var configMaps = map[string]bool{"calico-config": true, "canal-config": true}

// configKeys are those of the ConfigMaps of Calico's manifests.
var configKeys = join(
	map[string]Field{
		"calico_backend":     without("pools and BGPConfiguration say how nodes reach each other's pods", "bird"),
		"typha_service_name": without(noTypha, "none"),
		"veth_mtu":           without(sayMTU, "0"),
		"canal_iface":        without("say how a node's address is found by the annotation muslin.io/ip-autodetection-method of BGPConfiguration default"),
		"masquerade":         without("say natOutgoing in an IPPool"),
		"net-conf.json":      without("say cidr and vxlanMode in an IPPool"),
		"cluster_type":       without("tools find it in ClusterInformation default"),
	},
	each(without(notEtcd), "etcd_endpoints etcd_ca etcd_cert etcd_key"),
)

// variables are those of Calico's programs that are no field of FelixConfiguration.
var variables = join(
	each(without(agentsNode, byReference), "NODENAME KUBERNETES_NODE_NAME KUBERNETES_SERVICE_HOST KUBERNETES_SERVICE_PORT"),
	each(without("nothing waits for it", "true", "false"), "WAIT_FOR_DATASTORE SLEEP"),
	each(without("the agent logs to its standard error", "true"), "CALICO_DISABLE_FILE_LOGGING"),
	each(without(notEtcd), "ETCD_ENDPOINTS ETCD_CA_CERT_FILE ETCD_CERT_FILE ETCD_KEY_FILE"),
	each(without(sayMethod, "autodetect"), "IP IP_AUTODETECTION_METHOD CALICO_ROUTER_ID"),
	each(without("nodes have addresses of the families that their interfaces have; "+sayMethod, "autodetect"), "IP6 IP6_AUTODETECTION_METHOD"),
	map[string]Field{
		"DATASTORE_TYPE":            without(notEtcd, "kubernetes"),
		"CLUSTER_TYPE":              without("tools find it in ClusterInformation default", "k8s", "k8s,bgp", "k8s,canal"),
		"CALICO_NETWORKING_BACKEND": without("pools and BGPConfiguration say how nodes reach each other's pods", "bird"),
		"AS":                        without("say asNumber in BGPConfiguration default, or the annotation projectcalico.org/ASNumber of a Node"),
		"NO_DEFAULT_POOLS":          without("put pools, or none, into the ConfigMap muslin-seed", "false"),
		"CNI_MTU":                   without(sayMTU, "0"),
		"CNI_NETWORK_CONFIG":        without("its own configuration is told of where it stands", byReference),
		"CNI_CONF_NAME":             without("the agent chooses a name that sorts first; docs/cni.md"),
		"ENABLED_CONTROLLERS":       without("KubeControllersConfiguration default has what there is to choose", "node", "node,loadbalancer"),
		"LOG_LEVEL":                 without("set MUSLIN_LOG_LEVEL"),
		"USE_POD_CIDR":              without("say the CNI configuration's ipam.subnet: usePodCidr"),
		"FELIX_TYPHAK8SSERVICENAME": without(noTypha, "none"),
	},
)

// variablePrefixes are of many variables.
var variablePrefixes = map[string]string{
	"CALICO_IPV4POOL_": "say it in an IPPool, or let the ConfigMap muslin-seed have one",
	"CALICO_IPV6POOL_": "say it in an IPPool, or let the ConfigMap muslin-seed have one",
	"BGP_":             "write it into BGPConfiguration default",
	"TYPHA_":           noTypha,
	"CNI_":             "the agent installs the plugin; docs/cni.md",
}

const (
	byReference = "" // among Same: a value that comes from elsewhere asks for nothing

	noTypha   = "there is no Typha: agents watch the API server"
	notEtcd   = "the datastore is Kubernetes'"
	sayMTU    = "say mtu in the CNI configuration, or mtuIfacePattern in FelixConfiguration default"
	sayMethod = "say it by the annotation muslin.io/ip-autodetection-method or projectcalico.org/IPv4Address"
)
