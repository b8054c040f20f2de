package bgp

import (
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// Defaults of a session. A peer's own settings win.
const (
	DefaultListenPort  = 179
	DefaultHoldTime    = 90 * time.Second  // RFC 4271 section 10 suggests 90 s
	DefaultRestartTime = 120 * time.Second // BIRD's default, so Calico's maxRestartTime default
	DefaultMaxPaths    = 16                // BIRD's default of "merge paths on", as Calico uses it

	// DefaultPrefixLimit is how many prefixes a family a peer may announce: more
	// than a data centre has, less than the Internet's table, which a router that
	// redistributes by mistake would have every node hold and install.
	DefaultPrefixLimit = 100_000
	// PodPrefixLimit is that of a session with a pod, which tells of what is behind it.
	// A mesh session has the same as one with a reflector, whose limit it takes over
	// without a Cease.
	PodPrefixLimit = 10_000

	// NormalPriority is the priority (kernel metric) of a route that nobody
	// gave another one (Calico ipv4NormalRoutePriority).
	NormalPriority = 1024
	// maxLocalPref less a route's priority is its LOCAL_PREF in a Calico
	// cluster, so that mixed clusters compare like with like.
	maxLocalPref = 2147483647
	// LocalPref is the LOCAL_PREF of a node's own paths towards iBGP peers, when
	// no configuration gives routes another priority.
	LocalPref uint32 = maxLocalPref - NormalPriority
)

// Config is everything a node's speaker needs to know. It is a value: whoever
// holds it may keep it, nobody changes it. ASN 0 means that nothing is known
// about the node yet; a speaker then keeps what it has.
type Config struct {
	ASN        model.ASN
	RouterID   netip.Addr   // an IPv4 address, RFC 4271 section 4.2
	ListenPort int          // 1 to 65535
	Listen     []netip.Addr // empty: every address
	MaxPaths   int          // next hops of one learned prefix, at least 1

	// NoInstall are ranges whose learned prefixes are spoken of and never
	// installed: service addresses, which every node serves itself.
	NoInstall []netip.Prefix

	// Blocks are where the cluster's blocks lie, and of which lengths they and their
	// parts are; Origins are the AS numbers that tell of them, sorted.
	Blocks  []PrefixRange
	Origins []model.ASN

	Paths    []Path   // sorted by prefix
	Peers    []Peer   // sorted by address
	Policies []Policy // sorted by direction and name
}

// PathKind says why a prefix is announced.
type PathKind string

// The kinds of own paths.
const (
	PathBlock    PathKind = "block"    // a confirmed IPAM block of this node
	PathBorrowed PathKind = "borrowed" // an address in use here out of another node's block
	PathService  PathKind = "service"  // a service address or a range of them
	PathSelected PathKind = "selected" // a service address or an aggregate that only peers with a filter of Services hear of
)

// Path is a prefix this node originates. Communities are the business of the
// export policies.
type Path struct {
	Prefix    netip.Prefix
	NextHop   netip.Addr // this node's address of the prefix's family
	LocalPref uint32     // towards iBGP peers, unless a policy says otherwise
	Kind      PathKind
	// LastResort marks the path with GRACEFUL_SHUTDOWN (RFC 8326): it ends soon.
	LastResort bool
}

// Peer is one session.
type Peer struct {
	Address netip.Addr
	Port    int // 1 to 65535
	ASN     model.ASN
	Kind    model.PeerKind
	Object  model.Ref // the BGPPeer, or the Node of a mesh peer

	InCluster    bool       // a node of the cluster
	Pod          model.Ref  // the pod of this node that it is; zero: none
	LocalASN     model.ASN  // always set; differs from Config.ASN for localASNumber
	LocalAddress netip.Addr // the zero value: whatever the kernel chooses
	Passive      bool       // wait for the peer to connect
	Multihop     int        // TTL of what is sent to an external peer, 1 to 255; 0: the default, 255
	Password     model.Secret
	Families     []model.Family // the family of Address first

	HoldTime    time.Duration
	Keepalive   time.Duration
	RestartTime time.Duration // RFC 4724 restart time we announce
	NoRestart   bool          // graceful restart is not offered
	// ConnectRetry is the time between two tries to connect, RFC 4271 section 8.2.1.3;
	// 0: the speaker's own.
	ConnectRetry time.Duration

	AllowedLocalASNs int // how often our own AS may stand in a received AS_PATH
	TTLSecurity      int // hops, 1 to 254 (RFC 5082); 0: off

	ReflectorClient bool
	ClusterID       netip.Addr // of this node; set when ReflectorClient is
	ReachableBy     netip.Addr // gateway through which the peer's address is reached
	Link            Link       // the one on whose subnet the peer is; zero: none, or not known

	PrefixLimit int // prefixes a family the peer may announce, at least 1
	BFD         *BFD

	Import, Export string // names of policies
}

// usualPrefixLimit is the limit of a session that no annotation sets.
func (p Peer) usualPrefixLimit() int {
	if p.IsPod() {
		return PodPrefixLimit
	}
	return DefaultPrefixLimit
}

// Link is an interface of the node.
type Link struct {
	Name string
	Nets []netip.Prefix // its addresses, with the length of their subnets
}

// Holds reports whether an address lies on a subnet of the link.
func (l Link) Holds(a netip.Addr) bool {
	return slices.ContainsFunc(l.Nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// External reports an eBGP session.
func (p Peer) External() bool { return p.ASN != p.LocalASN }

// Outside reports a session with the world outside the cluster: neither a node nor
// a pod.
func (p Peer) Outside() bool { return !p.InCluster && !p.IsPod() }

// BFD asks for a bidirectional forwarding detection session (RFC 5880, 5881).
type BFD struct {
	Interval   time.Duration // transmit and receive interval, at least 10 ms
	Multiplier int           // missed packets until the peer is down, 1 to 255
}

// Peer finds the peer with an address.
func (c Config) Peer(a netip.Addr) (Peer, bool) {
	for _, p := range c.Peers {
		if p.Address == a {
			return p, true
		}
	}
	return Peer{}, false
}
