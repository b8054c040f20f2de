// Package nodeview is what an agent shows of its node to whoever asks why a
// packet does not arrive: the desired state, what BGP has learned, what the
// kernel has, and a probe.
//
// It is values only; package kernel beside it reads them and the agent serves
// them as JSON at /show and /show/path. It never changes anything. Kernel and
// wire footprint: none.
package nodeview

import (
	"net/netip"
	"strconv"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// View is a node as its agent has it.
type View struct {
	Node      model.NodeName
	Version   string
	Waiting   []string // what the agent is not ready for
	Peers     []model.PeerStatus
	Blocks    []model.Block
	Others    int // blocks of other nodes that it knows, to compute routes
	Borrowed  []netip.Prefix
	BGP       bgp.Config
	Learned   []model.Learned
	EndOfRIB  bool // BGP has heard what its peers had to say
	State     felix.State
	Policy    string // what the kernel was told of network policy, as text
	Endpoints []model.Endpoint
	Problems  []model.Problem
	Host      model.Host // what the agent resolves next hops through
	Kernel    Kernel
	System    System
}

// Kernel is what the kernel has.
type Kernel struct {
	Routes []Route // main table, sorted by prefix and metric
	Links  []Link
	Chains []Chain
	Errors []string // what could not be read
}

// Route is a route of the main table.
type Route struct {
	Prefix   netip.Prefix
	Type     string // unicast, blackhole, unreachable, ...
	Protocol int
	Metric   int
	NextHops []NextHop
}

// NextHop is one way out.
type NextHop struct {
	Gateway netip.Addr
	Device  string
	Down    bool // the link has no carrier, or the next hop is dead
}

// Link is a network interface.
type Link struct {
	Name, Kind string
	Alias      string
	MTU        int
	Up         bool
}

// Chain is a base chain of nftables.
type Chain struct {
	Family, Table, Name string
	Hook                string // prerouting, input, forward, output, postrouting
	Priority            int
	Drops               bool // its policy is drop
}

// Denied is the packets of one kind that network policy denied, as far as the agent was
// told: at most ten a second of each rule.
type Denied struct {
	First, Last         time.Time     // by the node's clock
	Age                 time.Duration // of Last, when this was shown; 0: an agent that does not tell
	Count               int
	Direction           string // "ingress" or "egress", seen from Pod
	By                  string // tier, policy, rule; or the end of a tier: "default end"
	Pod                 string // NAMESPACE/NAME of the one at the node that policy judged; empty: not known
	Source, Destination netip.Addr
	Port                uint16 // at the destination; 0: none
	Protocol            uint8
}

// Flow is a connection that the kernel tracks, as its first packet was seen by network
// policy: to a service, as it went to the pod behind it.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            uint8
	SourcePort, Port    uint16 // Port is the destination's; 0: none
	ICMPType, ICMPCode  uint8
}

// Service gives "80/tcp", or the protocol alone.
func (f Flow) Service() string { return service(f.Protocol, f.Port) }

// At gives the packets with the times that another clock had then, which shows now: the
// node's may differ.
func (d Denied) At(now time.Time) Denied {
	if d.Age > 0 {
		ahead := d.Last.Sub(now.Add(-d.Age))
		d.First, d.Last = d.First.Add(-ahead), d.Last.Add(-ahead)
	}
	return d
}

// Service gives "80/tcp", or the protocol alone.
func (d Denied) Service() string { return service(d.Protocol, d.Port) }

func service(protocol uint8, port uint16) string {
	name := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}[protocol]
	if name == "" {
		name = "protocol " + strconv.Itoa(int(protocol))
	}
	if port == 0 {
		return name
	}
	return strconv.Itoa(int(port)) + "/" + name
}

// Path is the way of one packet out of the node.
type Path struct {
	To        netip.Addr
	Route     *Route     // the kernel's answer; nil with Error
	Error     string     // why there is no route: "network is unreachable"
	Source    netip.Addr // the kernel's choice
	Device    string
	MTU       int
	Neighbour string // state and address of the next hop's neighbour entry: "reachable aa:bb:.."; empty: none
	Small     Probe  // an echo of a few bytes
	Large     Probe  // an echo as large as the pods' MTU allows, not to be fragmented
}

// Probe is an ICMP echo and what came of it.
type Probe struct {
	Size   int // bytes of the IP packet
	OK     bool
	RTT    time.Duration
	Reason string // of a failure: "no answer within 1s", "message too long (path MTU 1400)"
}
