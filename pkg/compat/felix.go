package compat

import (
	"fmt"

	"github.com/muslin-net/muslin/pkg/model"
)

var (
	effect    = Field{Effect: true}
	onDefault = Field{Effect: true, Default: true} // of the object named default
)

func without(why string, same ...string) Field { return Field{Why: why, Same: same} }

// felix are the fields of FelixConfiguration (Calico's config_params.go).
var felix = join(
	each(effect, `allowIPIPPacketsFromWorkloads allowVXLANPacketsFromWorkloads defaultEndpointToHostAction deviceRouteSourceAddress
		deviceRouteSourceAddressIPv6 externalNodesList floatingIPs interfacePrefix ipForwarding ipipEnabled ipipMTU
		iptablesNATOutgoingInterfaceFilter ipv4NormalRoutePriority ipv6NormalRoutePriority mtuIfacePattern natOutgoingAddress
		natOutgoingExclusions natPortRange programClusterRoutes removeExternalRoutes routeRefreshInterval serviceLoopPrevention vxlanEnabled vxlanMTU
		vxlanMTUV6 vxlanPort vxlanVNI workloadSourceSpoofing`),
	map[string]Field{
		"awsSrcDstCheck":                    without("set the check on the instances themselves", "DoNothing"),
		"deviceRouteProtocol":               without(fmt.Sprintf("every route of Muslin's has protocol %d, by which it is recognised", model.RouteProtocol), fmt.Sprint(model.RouteProtocol)),
		"goGCThreshold":                     without("set GOGC in the environment of the DaemonSet"),
		"goMaxProcs":                        without("set GOMAXPROCS in the environment of the DaemonSet"),
		"goMemoryLimitMB":                   without("set GOMEMLIMIT in the environment of the DaemonSet", "-1"),
		"interfaceExclude":                  without("no interface is taken for a pod's but those that Muslin made", "kube-ipvs0"),
		"ipv4ElevatedRoutePriority":         without(noLiveMigration),
		"ipv6ElevatedRoutePriority":         without(noLiveMigration),
		"liveMigrationRouteConvergenceTime": without("live migration is not supported"),
		"localSubnetL2Reachability":         without("announce pods by BGP instead", "Disabled"),
		"logSeverityScreen":                 without("set MUSLIN_LOG_LEVEL in the environment of the DaemonSet", "Info"),
		"nftablesFlowTableOffload":          without("flow tables are not supported", "Disabled"),
		"nftablesMode":                      without("rules are nftables' always", "Auto", "Enabled"),
		"requireMTUFile":                    without("no file is read or written for the MTU", "false"),
		"routeSource":                       without("routes of other nodes are learned by BGP, or computed from IPAM (programClusterRoutes)", "CalicoIPAM"),
		"routeSyncDisabled":                 without("routes are always kept", "false"),
		"routeTableRange":                   without(mainTable),
		"routeTableRanges":                  without(mainTable),
		"bpfEnabled":                        without(noBPF, "false"),
		"bpfLogLevel":                       without(noBPF),

		"ipv6Support":                       without("both address families are always on", "true"),
		"dataplaneDriver":                   without("the data plane is part of the agent"),
		"useInternalDataplaneDriver":        without("the data plane is part of the agent", "true"),
		"dataplaneWatchdogTimeout":          without("/healthz watches every loop of the agent"),
		"genericXDPEnabled":                 without(noXDP, "false"),
		"xdpEnabled":                        without(noXDP, "false"),
		"xdpRefreshInterval":                without(noXDP),
		"sidecarAccelerationEnabled":        without("there is no acceleration of sidecars", "false"),
		"openstackRegion":                   without("OpenStack is not supported"),
		"windowsManageFirewallRules":        without("Windows is not supported", "Disabled"),
		"usageReportingEnabled":             without(noReports, "false"),
		"usageReportingInitialDelay":        without(noReports),
		"usageReportingInterval":            without(noReports),
		"endpointReportingEnabled":          without("kubectl and muslinctl show endpoints", "false"),
		"endpointReportingDelay":            without("kubectl and muslinctl show endpoints"),
		"endpointStatusPathPrefix":          without("no file tells of endpoints"),
		"reportingInterval":                 without("muslinctl node status asks the agent"),
		"reportingTTL":                      without("muslinctl node status asks the agent"),
		"prometheusWireGuardMetricsEnabled": without(noWireguard, "false"),
		"featureDetectOverride":             without("features of the kernel are tried"),
		"featureGates":                      without("there are no feature gates"),
		"logFilePath":                       without(logs, "none"),
		"logSeverityFile":                   without(logs),
		"logSeveritySys":                    without(logs),
		"logPrefix":                         without(noLogAction),
		"logDebugFilenameRegex":             without("set MUSLIN_LOG_LEVEL in the environment of the DaemonSet"),
		"metadataAddr":                      without(noMetadata, "none"),
		"metadataPort":                      without(noMetadata),
		"policySyncPathPrefix":              without("there is no application layer policy"),
		"disableConntrackInvalidCheck":      without("where there is policy, packets of pods that belong to no connection are always dropped"),
		"kubeNodePortRanges":                without("node ports are kube-proxy's"),
		"netlinkTimeout":                    without("netlink calls have bounds of their own"),
		"interfaceRefreshInterval":          without("interfaces are followed by the kernel's notifications"),
		"cgroupV2Path":                      without(noBPF),
	},
	each(without(noWireguard, "false"), `wireguardEnabled wireguardEnabledV6 wireguardHostEncryptionEnabled wireguardInterfaceName
		wireguardInterfaceNameV6 wireguardKeepAlive wireguardListeningPort wireguardListeningPortV6 wireguardMTU wireguardMTUV6
		wireguardRoutingRulePriority wireguardThreadingEnabled`),
	each(without(noBPF), `bpfAttachType bpfCTLBLogFilter bpfConnectTimeLoadBalancing bpfConnectTimeLoadBalancingEnabled bpfConntrackLogLevel
		bpfConntrackMode bpfConntrackTimeouts bpfDSROptoutCIDRs bpfDataIfacePattern bpfDisableGROForIfaces bpfDisableUnprivileged
		bpfEnforceRPF bpfExcludeCIDRsFromNAT bpfExportBufferSizeMB bpfExtToServiceConnmark bpfExternalServiceMode
		bpfForceTrackPacketsFromIfaces bpfHostConntrackBypass bpfHostNetworkedNATWithoutCTLB bpfKubeProxyEndpointSlicesEnabled
		bpfKubeProxyIptablesCleanupEnabled bpfKubeProxyMinSyncPeriod bpfL3IfacePattern bpfLogFilters bpfMapSizeConntrack
		bpfMapSizeConntrackCleanupQueue bpfMapSizeConntrackScaling bpfMapSizeIPSets bpfMapSizeIfState bpfMapSizeNATAffinity
		bpfMapSizeNATBackend bpfMapSizeNATFrontend bpfMapSizePerCpuConntrack bpfMapSizeRoute bpfPSNATPorts bpfPolicyDebugEnabled
		bpfProfiling bpfRedirectToPeer`),
	each(without("Muslin's rules are in an nftables table of their own"), `chainInsertMode iptablesBackend iptablesFilterAllowAction
		iptablesFilterDenyAction iptablesLockFilePath iptablesLockProbeInterval iptablesLockTimeout iptablesMangleAllowAction
		iptablesMarkMask iptablesPostWriteCheckInterval iptablesRefreshInterval ipsetsRefreshInterval maxIpsetSize
		nftablesFilterAllowAction nftablesFilterDenyAction nftablesMangleAllowAction nftablesMarkMask nftablesRefreshInterval`),
	below("failsafeInboundHostPorts failsafeOutboundHostPorts", each(effect, "net port protocol")),
	each(without("there are no flow logs"), `flowLogsCollectorDebugTrace flowLogsFlushInterval flowLogsGoldmaneServer flowLogsLocalReporter
		flowLogsPolicyEvaluationMode`),
	each(without("health and metrics are at MUSLIN_HTTP_ADDR of the DaemonSet"), `healthHost healthPort healthTimeoutOverrides
		prometheusGoMetricsEnabled prometheusMetricsHost prometheusMetricsPort prometheusProcessMetricsEnabled`),
	each(without("health and metrics are at MUSLIN_HTTP_ADDR of the DaemonSet", "true"), "healthEnabled prometheusMetricsEnabled"),
	each(without("it is for those who debug Felix"), `debugDisableLogDropping debugHost debugMemoryProfilePath debugPort
		debugSimulateCalcGraphHangAfter debugSimulateDataplaneApplyDelay debugSimulateDataplaneHangAfter`),
)

const (
	noLiveMigration = "routes have one priority; live migration is not supported"
	byOneHand       = "what BGP learns is in the kernel always; what is computed beside it says FelixConfiguration programClusterRoutes"
	mainTable       = "routes are in the main table only"
	noBPF           = "there is no eBPF data plane"
	noXDP           = "there is no XDP program"
	noWireguard     = "WireGuard is not supported"
	noReports       = "Muslin reports to nobody"
	logs            = "the agent logs to its standard error"
	noLogAction     = "lines of rules with action Log begin with muslin-policy"
	noMetadata      = "there is no OpenStack metadata service"
	qos             = "limit bandwidth by kubernetes.io/ingress-bandwidth and egress-bandwidth; packets and connections are not limited"
)
