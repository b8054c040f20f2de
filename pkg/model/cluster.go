package model

import (
	"net/netip"
	"slices"
)

// Snapshot is what one node knows of the cluster at one moment. It is a value:
// whoever holds it may read it for ever, nobody changes it. Slices are sorted
// by name (blocks by prefix), so that equal clusters give equal snapshots.
type Snapshot struct {
	// Synced is true once every source has listed its objects at least once.
	// Nothing may be deleted from the kernel or withdrawn from a peer on the
	// word of a snapshot that is not synced.
	Synced bool

	Nodes    []Node
	Pools    []Pool
	BGP      []BGPConfiguration // "default" and "node.<name>"
	Peers    []BGPPeer
	Filters  []BGPFilter
	Services []Service
	Felix    []FelixConfiguration // "default" and "node.<name>"
	Blocks   []Block              // every block this node knows: its own, and others' when routes are computed from them or the origin check asks
	// Lent are the addresses of all blocks that other nodes than the block's have.
	// LentKnown: these and the blocks of other nodes are known.
	Lent       []Lease
	LentKnown  bool
	Borrowed   []netip.Prefix // host prefixes (/32, /128) this node uses out of other nodes' blocks
	Namespaces map[string]map[string]string
	IPAM       IPAM
	// Workloads are the pods of this node, as long as a BGPPeer selects any by
	// localWorkloadSelector.
	Workloads []Workload
	// ServiceCIDRs are sorted by name; none when the server has no such kind or
	// does not let it be read.
	ServiceCIDRs []ServiceCIDR
	Reserved     []netip.Prefix // sorted; no address in these is assigned unless asked for by address (Calico IPReservation)
}

// Node finds a node by its name.
func (s Snapshot) Node(name NodeName) (Node, bool) {
	i := slices.IndexFunc(s.Nodes, func(n Node) bool { return n.Name == name })
	if i < 0 {
		return Node{}, false
	}
	return s.Nodes[i], true
}

// IPAM holds the settings of address assignment (Calico IPAMConfiguration
// "default", with Calico's defaults in place of what is not set).
type IPAM struct {
	StrictAffinity     bool // no borrowing from other nodes' blocks
	AutoAllocateBlocks bool // claim new blocks as needed; default true
	MaxBlocksPerHost   int  // blocks of each family; 0 means the allocator's default
	CooldownSeconds    int  // how long a released address stays unused; 0 to 1200
	Locked             bool // nothing may be assigned or released (ClusterInformation datastoreReady: false)
}

// Node is a Kubernetes node with what Calico keeps on it.
type Node struct {
	Name        NodeName
	Labels      map[string]string
	Annotations map[string]string // only projectcalico.org/ and muslin's own

	// Address with the length of its subnet when it is known
	// (projectcalico.org/IPv4Address, IPv6Address), else from the InternalIP
	// with the length of a host prefix (package nodeaddr has the rule). The zero
	// value means: no such family.
	IPv4, IPv6  netip.Prefix
	InternalIPs []netip.Addr // status.addresses, in kubelet's order
	OtherIPs    []netip.Addr // status.addresses of all other types

	ASN                     ASN    // projectcalico.org/ASNumber; 0 means the cluster's
	RouteReflectorClusterID string // projectcalico.org/RouteReflectorClusterID; empty means: no reflector

	PodCIDRs []netip.Prefix // node.spec.podCIDRs

	IPIPTunnel            netip.Addr // projectcalico.org/IPv4IPIPTunnelAddr
	VXLANTunnel           netip.Addr // projectcalico.org/IPv4VXLANTunnelAddr
	VXLANTunnelV6         netip.Addr
	VXLANMAC, VXLANMACV6  string
	Deleting              bool
	Unschedulable         bool
	ExcludeFromExternalLB bool // label node.kubernetes.io/exclude-from-external-load-balancers
}

// Subnets are IPv4 and IPv6, as far as the node has them.
func (n Node) Subnets() []netip.Prefix {
	return slices.DeleteFunc([]netip.Prefix{n.IPv4, n.IPv6}, func(p netip.Prefix) bool { return !p.IsValid() })
}

// Subnet is that of a family; the zero value when the node has none.
func (n Node) Subnet(f Family) netip.Prefix { return OfFamily(f, n.IPv4, n.IPv6) }

// Address is that of a family; the zero value when the node has none.
func (n Node) Address(f Family) netip.Addr { return n.Subnet(f).Addr() }

// Addresses are the node's own and those of its tunnels; the zero value stands for each
// that it does not have.
func (n Node) Addresses() []netip.Addr {
	return []netip.Addr{n.IPv4.Addr(), n.IPv6.Addr(), n.IPIPTunnel, n.VXLANTunnel, n.VXLANTunnelV6}
}

// Encap says when a pool's traffic is tunnelled (Calico ipipMode, vxlanMode).
type Encap string

// The values of Encap.
const (
	EncapNever       Encap = "Never"
	EncapAlways      Encap = "Always"
	EncapCrossSubnet Encap = "CrossSubnet"
)

// Use is what an address is for (Calico allowedUses).
type Use string

// The values of Use.
const (
	UseWorkload     Use = "Workload"
	UseTunnel       Use = "Tunnel"
	UseLoadBalancer Use = "LoadBalancer"
)

// Pool is an IPPool (reference: Calico IPPool).
type Pool struct {
	Name              string
	UID               string
	CIDR              netip.Prefix
	BlockSize         int // prefix length of a block: 20..32 for IPv4, 116..128 for IPv6
	IPIP, VXLAN       Encap
	NATOutgoing       bool
	Disabled          bool
	DisableBGPExport  bool
	NodeSelector      Selector
	NamespaceSelector Selector
	AllowedUses       []Use
	Manual            bool // assignmentMode: Manual
	Deleting          bool
	// Allocatable is false when the pool's status says so, or when it overlaps
	// an older pool.
	Allocatable bool
	// Excluded are ranges that something else uses: a node's subnet, Services, a
	// router. No block that overlaps one is claimed, and no address in them is
	// given, even if asked for. Sorted, none inside another.
	Excluded    []netip.Prefix
	Annotations map[string]string
}

// LoadBalancerOnly reports whether no pod and no tunnel gets an address of the
// pool: its allowedUses name neither.
func (p *Pool) LoadBalancerOnly() bool {
	return len(p.AllowedUses) > 0 && !slices.Contains(p.AllowedUses, UseWorkload) && !slices.Contains(p.AllowedUses, UseTunnel)
}

// ServiceCIDR is one range of an object networking.k8s.io/v1 ServiceCIDR, out of
// which Kubernetes assigns cluster IPs.
type ServiceCIDR struct {
	Name string
	CIDR netip.Prefix
}

// BlockState is the state of a block's affinity (Calico BlockAffinity.spec.state).
type BlockState string

// The values of BlockState. Only a confirmed block is announced.
const (
	BlockPending         BlockState = "pending"
	BlockConfirmed       BlockState = "confirmed"
	BlockPendingDeletion BlockState = "pendingDeletion"
)

// Block is a block of addresses and the node it belongs to.
type Block struct {
	CIDR  netip.Prefix
	Node  NodeName // empty: affine to no node
	State BlockState
}

// Lease is an address out of a block of another node, or of none.
type Lease struct {
	Addr netip.Addr `json:"addr"`
	Node NodeName   `json:"node"` // the one that uses it
}

// Service is a Kubernetes service, reduced to what BGP announces.
type Service struct {
	Namespace, Name string
	ClusterIPs      []netip.Addr
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr
	Type            string // ClusterIP, NodePort, LoadBalancer
	LocalTraffic    bool   // externalTrafficPolicy: Local
	InternalLocal   bool   // internalTrafficPolicy: Local
	IPv4, IPv6      Endpoints
	Annotations     map[string]string
	// Labels are the Service's own, projectcalico.org/name and projectcalico.org/namespace.
	Labels map[string]string
}

// Endpoints say where a service is served in one address family.
type Endpoints struct {
	Here, Anywhere bool // a ready endpoint on this node; on any node
	// An endpoint that terminates and still serves, which kube-proxy uses when no
	// other is left (KEP-1669): on this node; on any node.
	LastHere, LastAnywhere bool
}

// Action is what becomes of packets.
type Action string

// The values of Action that say more than that packets go their way.
const (
	ActionAccept Action = "Accept"
	ActionDrop   Action = "Drop"
	ActionReject Action = "Reject"
	ActionOff    Action = "Disabled" // packets are not looked at
	ActionKeep   Action = "Keep"
	// ActionReevaluate is for connections as if they were new ones.
	ActionReevaluate Action = "Reevaluate"
)

// FelixConfiguration holds the data plane's settings that are in force for a
// node; a nil pointer or a zero value means Calico's default.
type FelixConfiguration struct {
	Name string // "default" or "node.<name>"

	IPIPMTU, VXLANMTU, VXLANMTUV6, MTU int
	// MTUInterfaces is a regular expression for names of the node's links: the
	// smallest MTU of those is the node's (mtuIfacePattern).
	MTUInterfaces          string
	VXLANPort, VXLANVNI    int
	NATPortMin, NATPortMax int
	NATOutgoingAddress     netip.Addr
	NATExcludeHosts        bool // natOutgoingExclusions: IPPoolsAndHostIPs
	InterfacePrefix        string
	RouteRefreshSeconds    int
	// FailsafeIn and FailsafeOut are what policies of host endpoints never cut
	// (failsafeInboundHostPorts, failsafeOutboundHostPorts); nil: not set.
	FailsafeIn, FailsafeOut     []FailsafePort
	IPForwardingDisabled        bool
	SpoofingAllowed             bool
	FloatingIPs                 bool // Enabled
	IPIPDisabled, VXLANDisabled bool // ipipEnabled, vxlanEnabled: false
	// DeviceRouteSource and DeviceRouteSourceV6 are the source that the node
	// prefers towards its pods and learned prefixes (deviceRouteSourceAddress, -IPv6).
	DeviceRouteSource, DeviceRouteSourceV6 netip.Addr
	KeepExternalRoutes                     bool           // removeExternalRoutes: false
	ExternalNodes                          []netip.Prefix // externalNodesList
	// VXLANFromPods and IPIPFromPods let pods send tunnelled packets
	// (allowVXLANPacketsFromWorkloads, allowIPIPPacketsFromWorkloads).
	VXLANFromPods, IPIPFromPods bool
	// NATInterface is where natOutgoing applies; a "+" at the end stands for
	// anything (iptablesNATOutgoingInterfaceFilter).
	NATInterface string
	// RoutePriority and RoutePriorityV6 are the metrics of routes
	// (ipv4NormalRoutePriority, ipv6NormalRoutePriority); 0: 1024.
	RoutePriority, RoutePriorityV6 int
	// ToHost is what becomes of packets from pods to the node
	// (defaultEndpointToHostAction): Accept, Drop, Return; empty: Accept.
	ToHost Action
	// ServiceLoops is what becomes of packets for service ranges that nobody
	// serves (serviceLoopPrevention): Drop, Reject, Disabled; empty: Drop.
	ServiceLoops Action
	// Established is what becomes of established connections when policy is tightened (an annotation):
	// Keep, Reevaluate; empty: Keep. EpochMask are the bits of their mark that it takes; 0: the default.
	Established Action
	EpochMask   uint32
	// ClusterRoutes says which routes to other nodes' pods are computed from IPAM
	// (programClusterRoutes): Enabled, EnabledIPIPOnly, Disabled; empty: those that
	// BGP cannot bring, since there is nobody to speak it with.
	ClusterRoutes string
	Raw           map[string]string
}
