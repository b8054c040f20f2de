package felix

import (
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// DefaultRouteMetric is the priority of every route Muslin writes (Calico
// ipv4NormalRoutePriority). Connected and static routes of others have a lower
// one, so that they win where both name the same prefix.
const DefaultRouteMetric = 1024

// State is what the kernel has to say. Slices are sorted, so that equal states
// are deeply equal and have the same text.
type State struct {
	Routes  []Route
	Tunnels []Tunnel
	Rules   Ruleset
	Sysctls []Sysctl
	MTU     MTU
	// External are routes of others over pods' links, which are to go.
	External []ExternalRoute
	Pods     []PodLink // sorted by device
	// Advertised are the links with unnumbered routers, sorted by device.
	Advertised []AdvertisedLink
	// ByIPAM are the prefixes of Routes that IPAM names and BGP has not learned,
	// sorted.
	ByIPAM []netip.Prefix
	// Refresh is how often the routes are read again besides (Calico
	// routeRefreshInterval); 0: the reconciler's default.
	Refresh time.Duration
	// Prune permits the reconcilers to delete what is ours and not in this
	// State. It is false until every source has been heard.
	Prune bool
}

// RouteType is the kind of a route (rtm_type).
type RouteType uint8

// The kinds of routes Muslin writes.
const (
	Unicast RouteType = iota
	Blackhole
	Unreachable
)

// Route is a route of the main table with protocol model.RouteProtocol. The
// prefix is its key: a State never has two routes with the same prefix.
type Route struct {
	Prefix netip.Prefix
	Metric int
	// NextHopGroup is shared by routes that have the same, of which there may be many
	// thousands, and never changed. It is never nil.
	*NextHopGroup
}

// NextHopGroup is where a route leads.
type NextHopGroup struct {
	Type RouteType
	// LinkScope says that the prefix is reached on the link itself, with no
	// gateway (RT_SCOPE_LINK): a pod.
	LinkScope bool
	// Source is the preferred source address; the zero value means: the
	// kernel's choice.
	Source netip.Addr
	// NextHops are sorted and unique; empty unless Type is Unicast.
	NextHops []NextHop
}

// NextHop is one way out.
type NextHop struct {
	Gateway netip.Addr // zero: the destination is on the link; its family may differ from the prefix's (RFC 8950)
	Link    int        // interface index
	Device  string     // name of the interface, for people
	OnLink  bool       // the gateway is on the link although no route says so (RTNH_F_ONLINK)
}

// Drops reports whether what is sent to an address of a prefix that no other route leads to
// is dropped.
func (s State) Drops(prefix netip.Prefix) bool {
	i, found := slices.BinarySearchFunc(s.Routes, prefix, func(r Route, p netip.Prefix) int { return ComparePrefix(r.Prefix, p) })
	return found && s.Routes[i].Type == Blackhole
}

// Tunnel is a tunnel device and, for VXLAN, where the other nodes are.
type Tunnel struct {
	Kind    TunnelKind
	Name    string
	Address netip.Addr // the device's own, with a host prefix
	Local   netip.Addr // this node's address: the outer source
	Parent  int        // interface index of the link that packets leave by; 0: the route decides
	MTU     int        // 0: not known yet
	MAC     string     // VXLAN only
	VNI     int        // VXLAN only
	Port    int        // VXLAN only, UDP
	Peers   []TunnelPeer
}

// TunnelKind is the kind of a tunnel device.
type TunnelKind uint8

// The kinds of tunnels.
const (
	IPIP TunnelKind = iota
	VXLAN
)

// TunnelPeer is a node at the other end of a VXLAN device: a permanent
// neighbour entry (Address to MAC) and a forwarding entry (MAC to Node).
type TunnelPeer struct {
	Address netip.Addr // of the peer's tunnel device
	MAC     string
	Node    netip.Addr // of the peer node: the outer destination
}

// Ruleset is the content of the nftables table "inet muslin".
type Ruleset struct {
	// Complete is false until the pools and the pods of this node are known. A
	// table that is there stays as it is until then.
	Complete    bool
	NAT         NAT
	SourceCheck SourceCheck
	Tunnels     TunnelGuard
	Services    ServiceGuard
	Floating    Floating
}

// NAT is natOutgoing: packets from Sources to anywhere but Exclude leave with
// an address of the node.
type NAT struct {
	Sources []netip.Prefix // pools with natOutgoing; sorted, disjoint
	Exclude []netip.Prefix // every pool, and the nodes when asked; sorted, disjoint
	// Address replaces the source instead of the outgoing interface's address
	// (Calico natOutgoingAddress); IPv4 or IPv6, applied to its own family.
	Address netip.Addr
	// PortMin and PortMax bound the source ports (Calico natPortRange); zero:
	// the kernel's choice.
	PortMin, PortMax int
	// Interface is where packets have to leave for it; a "*" at the end stands
	// for anything, empty for all.
	Interface string
}

// SourceCheck is what pods may send.
type SourceCheck struct {
	// Prefix is how the names of pod interfaces start ("cali"); empty turns the
	// whole check off.
	Prefix string
	// OtherPrefixes are those of pods that were attached under another
	// configuration, and of links that must be no pod's.
	OtherPrefixes []string
	// Pods are the interfaces that are known. A packet from an interface with
	// the prefix that is not among them is dropped.
	Pods []PodSource
	// ToHost says what becomes of packets from pods to the node itself (Calico
	// defaultEndpointToHostAction): "Accept", "Drop" or "Return".
	ToHost model.Action
	// BGPPort is where the node listens for BGP: open to pods that speak it, also
	// where ToHost is "Drop", and to no other.
	BGPPort int
	// NoIPIP and NoVXLAN drop tunnelled packets of the kinds that are guarded
	// when pods send them: masqueraded, they would pass for a node's.
	NoIPIP, NoVXLAN bool
}

// LinkLocalRate is how many packets a second the pods of a node may send it together
// from IPv6 link-local addresses that are not made of their hardware addresses, as
// virtual machines in pods do. Beyond 512 entries in the table of neighbours
// (gc_thresh2) the kernel takes back what is older than five seconds.
const LinkLocalRate = 20

// PodSource is a pod interface with the source prefixes it may use.
type PodSource struct {
	Interface string
	Sources   []netip.Prefix // sorted
	Local     netip.Addr     // IPv6, made of its hardware address (RFC 4291 appendix A); invalid without one
	Speaks    bool           // BGP with the node
}

// TunnelGuard drops tunnelled packets from hosts that are not nodes.
type TunnelGuard struct {
	IPIP       bool
	VXLANPorts []int // UDP, sorted; empty: no VXLAN
	Nodes      []netip.Addr
	External   []netip.Prefix // hosts beside the nodes; sorted, disjoint
}

// Any says that there is something to guard.
func (g TunnelGuard) Any() bool { return g.IPIP || len(g.VXLANPorts) > 0 }

// ServiceGuard ends the loop of a packet for a service address that nobody
// serves: the router sends it to a node that announces the range, the node back
// to the router (Calico serviceLoopPrevention). kube-proxy rewrites the packets
// of services that are served before the guard sees them.
type ServiceGuard struct {
	Ranges []netip.Prefix // the ranges announced by BGP; sorted, disjoint
	Reject bool           // say so to the sender instead of dropping
}

// Sysctl is a value below /proc/sys, by path ("net/ipv4/ip_forward").
type Sysctl struct {
	Key, Value string
	If         string // written only where this is the value now; empty: always
}

// ExternalRoute is a route of somebody else's that leads to a pod's link.
type ExternalRoute struct {
	Prefix           netip.Prefix
	Metric, Protocol int
	Link             int // interface index
	Device           string
}

// PodGateway6 is the gateway of every IPv6 pod, an address of the node's end of
// its link (Calico's).
var PodGateway6 = netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")

// PodLink is the node's end of a pod's link, as felix/pod made it.
type PodLink struct {
	Device    string
	Link      int          // interface index
	Gateway   netip.Addr   // PodGateway6, if the pod has an IPv6 address
	Addresses []netip.Addr // the pod's, each with a permanent neighbour entry
	// Peering are the node's addresses of BGP sessions with the pod, sorted. Many
	// links may have the same ones.
	Peering []netip.Addr
	// AnySource says that the pod may send from where no route leads back to it:
	// its link has no reverse path filtering (rp_filter), all others have it
	// strict.
	AnySource bool
	MAC       string // the pod's
	MTU       int    // bytes; 0: State.MTU.Pod, as it changes
}

// AdvertisedLink is a link on which the node sends router advertisements.
type AdvertisedLink struct {
	Device string
	Link   int // interface index
	MAC    string
}

// MTU has the largest packets, in bytes, for links of our own.
type MTU struct {
	Pod int // for new and existing pod links; 0: not known yet
}
