package model

import (
	"maps"
	"net/netip"
	"time"
)

// BGPConfiguration is Calico's object of that name: "default" for the cluster,
// "node.<name>" for one node (which honours PrefixAdvertisements, ListenPort
// and LogSeverity only).
type BGPConfiguration struct {
	Name                 string
	MeshEnabled          *bool // nodeToNodeMeshEnabled, default true
	ASN                  ASN   // 0 means DefaultASN
	ListenPort           int   // 0 means 179
	LogSeverity          string
	MeshPassword         *PasswordRef
	MeshMaxRestartTime   time.Duration // 0 means 120 s
	ServiceClusterIPs    []netip.Prefix
	ServiceExternalIPs   []netip.Prefix
	ServiceLoadBalancers []netip.Prefix
	NoLBAggregation      bool // serviceLoadBalancerAggregation: Disabled
	Communities          map[string]string
	PrefixAdvertisements []PrefixAdvertisement
	BindNodeIP           bool // bindMode: NodeIP
	// RoutePriority and RoutePriorityV6 are the metric of ordinary routes, from
	// which LOCAL_PREF follows (ipv4NormalRoutePriority); 0 means 1024.
	RoutePriority, RoutePriorityV6 int
	LocalWorkloadPeerIPv4          netip.Addr
	LocalWorkloadPeerIPv6          netip.Addr
	Annotations                    map[string]string
}

// PrefixAdvertisement attaches communities, by name or by value, to every
// prefix inside CIDR (Calico prefixAdvertisements).
type PrefixAdvertisement struct {
	CIDR        netip.Prefix
	Communities []string
}

// PasswordRef names a key of a Secret in the agent's namespace. Value is filled
// in by whoever can read it; Known is false until then, and the peer is
// withheld.
type PasswordRef struct {
	SecretName, Key string
	Known           bool
	Value           Secret
}

// BGPPeer is Calico's object of that name.
type BGPPeer struct {
	Name                    string
	Node                    NodeName   // xor NodeSelector; neither means: every node
	NodeSelector            Selector   // nil: not set
	PeerIP                  netip.Addr // xor PeerSelector
	PeerPort                int        // 0 means 179
	PeerSelector            Selector   // nil: not set
	ASN                     ASN
	LocalASN                ASN // 0 means the node's own
	NextHopMode             NextHopMode
	KeepOriginalNextHop     bool
	Password                *PasswordRef
	AnySource               bool          // sourceAddress: None
	MaxRestartTime          time.Duration // 0 means 120 s
	KeepaliveTime           time.Duration // 0 means a third of the hold time
	NumAllowedLocalASNs     int
	TTLSecurity             int // hops; 0 means off
	ReachableBy             netip.Addr
	Filters                 []string
	HasLocalWorkloadPeering bool
	LocalWorkloadSelector   Selector
	NoReverse               bool // reversePeering: Manual
	Annotations             map[string]string
}

// NextHopMode is what becomes of the next hop of what a peer is sent (BGPPeer
// nextHopMode).
type NextHopMode string

// The values of NextHopMode.
const (
	NextHopAuto NextHopMode = "Auto"
	NextHopSelf NextHopMode = "Self"
	NextHopKeep NextHopMode = "Keep"
)

// Workload is a pod of this node that BGP may be spoken with.
type Workload struct {
	Namespace, Pod string
	Labels         map[string]string // WorkloadLabels
	Addresses      []netip.Addr
}

// WorkloadLabels are what a BGPPeer selects a pod by: its labels, with the two
// that Calico adds, which no label of the pod's own can pretend to be.
func WorkloadLabels(namespace string, labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	out["projectcalico.org/namespace"], out["projectcalico.org/orchestrator"] = namespace, "k8s"
	return out
}

// BGPFilter is Calico's object of that name. The first matching rule wins; past
// the last rule an import is accepted and an export falls to the default
// export rules.
type BGPFilter struct {
	Name                                   string
	ExportV4, ImportV4, ExportV6, ImportV6 []FilterRule

	// Services narrows the export rules to the addresses of the Services that it
	// selects, by their labels and those that Service.Labels adds; nil: to nothing.
	Services Selector
	// AggregationLength is the length of the prefix that is announced in place of an
	// address that a rule accepts, 1 to 32 and, in IPv6, 1 to 128; 0: the address itself.
	AggregationLength, AggregationLengthV6 int
}

// FilterRule is one rule of a BGPFilter; zero fields match everything.
type FilterRule struct {
	CIDR                 netip.Prefix
	MatchOperator        MatchOperator
	MinLength, MaxLength *int
	Source               string // RemotePeers
	Interface            string
	PeerType             PeerType // empty: both
	Communities          []string
	ASPathPrefix         []ASN
	Priority             *int
	Accept               bool
	Operations           []FilterOperation
}

// MatchOperator is how a prefix relates to a rule's CIDR.
type MatchOperator string

// The values of MatchOperator.
const (
	Equal    MatchOperator = "Equal"
	NotEqual MatchOperator = "NotEqual"
	In       MatchOperator = "In"
	NotIn    MatchOperator = "NotIn"
)

// PeerType is the kind of session a rule is for.
type PeerType string

// The values of PeerType.
const (
	EBGP PeerType = "eBGP"
	IBGP PeerType = "iBGP"
)

// FilterOperation changes an accepted route; exactly one field is set.
type FilterOperation struct {
	AddCommunity  string
	PrependASPath []ASN
	SetPriority   *int
}

// Learned is a prefix that BGP has chosen, and where it leads.
type Learned struct {
	Prefix netip.Prefix
	// Multipath is shared by prefixes that have the same, of which there may be
	// many thousands, and never changed. It is never nil.
	*Multipath
}

// Multipath is every next hop of an equal-cost set. Next hops are as received and
// need not be on a link.
type Multipath struct {
	NextHops []netip.Addr // sorted, unique, at least one; IPv6 next hops may carry IPv4 prefixes (RFC 8950)
	From     []netip.Addr // the peers they were learned from, one for each next hop
	Mesh     bool         // learned from a node of the mesh
	Stale    bool         // kept by graceful restart (RFC 4724)
	IPAM     bool         // not learned: the next hop is the node that IPAM says has the prefix
}

// PeerKind is how a peer came to be, in the words of CalicoNodeStatus.
type PeerKind string

// The values of PeerKind.
const (
	PeerMesh   PeerKind = "NodeMesh"
	PeerNode   PeerKind = "NodePeer"
	PeerGlobal PeerKind = "GlobalPeer"
)

// SessionState is a state of RFC 4271 section 8.2.2.
type SessionState string

// Established is the state in which routes are exchanged; the others are Idle, Connect,
// Active, OpenSent and OpenConfirm.
const Established SessionState = "Established"

// PeerStatus is a session as the speaker sees it.
type PeerStatus struct {
	Address                    netip.Addr
	Port                       int
	ASN                        ASN
	Kind                       PeerKind
	Object                     Ref // the BGPPeer, or the Node of a mesh peer
	State                      SessionState
	Since                      time.Time
	Flaps                      int
	LastError                  string         // why it is not established, or was lost last
	LastReason                 string         // the same as one word, out of a fixed set
	Received, Accepted, Sent   map[string]int // prefixes by family, "ipv4" and "ipv6"
	MessagesIn, MessagesOut    uint64
	BFDState                   string
	GracefulRestart            bool // negotiated for at least one family
	PeerRestarting             bool
	UptimeEstablished          time.Duration
	NegotiatedHold, Keepalive  time.Duration
	AdvertisedCapabilitiesNote string
}

// Up reports whether the session is established.
func (s PeerStatus) Up() bool { return s.State == Established }
