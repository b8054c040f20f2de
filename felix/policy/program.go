package policy

import (
	"cmp"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// TableName is the table of the inet family that a Program becomes, and that is all
// Muslin's.
const TableName = "muslin-policy"

// Program is everything that the kernel of one node has to know of policy. It is
// a value: whoever holds it may read it for ever, nobody changes it. Two Programs
// share what did not change.
//
// A packet of a connection that is already known passes, and is no business of
// the Program, but for EpochMask. The first packet of another one is judged twice, if both ends are
// here: by Egress of the endpoint that it comes from, then by Ingress of the one it
// goes to. Both have to allow. An interface of a pod that is not among Endpoints
// is unknown, and both directions of it are dropped.
type Program struct {
	// Complete is true once every source has been heard. Before that the Program is
	// empty and says nothing: the kernel stays as it is, what is closed stays closed.
	Complete bool
	// Closed is true while there are policies: an interface of a pod that is not among Endpoints is
	// dropped, even where there is no chain. So a pod is closed before anybody knows of it.
	Closed bool
	// Unknown is true if some pod of the node is not among Endpoints, while there are
	// policies.
	Unknown bool
	// EpochMask are the bits of a connection's mark that say whether policy has let it through
	// since it was last tightened: one that it has not meets it again. 0: what is established passes.
	EpochMask uint32
	Endpoints map[string]Endpoint // by the name of the host's end of the pod's link
	// Hosts are the node's own interfaces that policies judge, by name, or
	// model.AnyInterface for all others that are neither a pod's nor the loopback. One
	// that is not among them is open.
	Hosts map[string]Host
	// Chains are those that Endpoints, Hosts and Pass rules lead to, and those of pods of
	// this node that have no endpoint yet, no others.
	Chains model.Sorted[Chain]
	Sets   model.Sorted[*Set] // those that rules name, no others; may be empty
	// Needs are what the policies of Endpoints and Hosts ask of pods of all nodes, sorted.
	// Which of them are known changes nothing of it. Nil without Input.Known.
	Needs []Need
}

// Chain gives a chain, the zero value if there is none of that name.
func (p Program) Chain(id ChainID) Chain {
	c, _ := p.Chains.Get(Chain{ID: id})
	return c
}

// Set gives a set, the zero value if there is none of that name.
func (p Program) Set(id SetID) Set {
	if s, found := p.Sets.Get(&Set{ID: id}); found {
		return *s
	}
	return Set{}
}

// Evaluates reports whether any packet of a pod that is known, or should be, is judged.
func (p Program) Evaluates() bool { return p.Chains.Len() > 0 || p.Unknown }

// Endpoint says which chain judges what a pod receives (Ingress) and sends
// (Egress). An empty ChainID: no policy of that direction selects it, and
// everything is allowed.
type Endpoint struct {
	Ingress, Egress ChainID
}

// ChainID names a Chain by what it is for, not by its rules: a tier, those of its policies that have
// rules of the direction, and the chain behind it. So it stays the same as rules change, in one process
// and in the next. Within a Program equal lists are one Chain. It is made of
// a-z, 0-9 and "-", at most 24 bytes, and begins with "i-" or "e-" for the direction. "pi-", "ui-" and
// "ue-" are of host endpoints: before services are resolved, and before connections are
// known.
type ChainID string

// Chain is the ordered policies of one tier, in one direction, for all endpoints
// that have the same ones. The first Rule that matches decides, but for Log. The
// last one matches everything and is no Log, so that no packet falls off the end.
type Chain struct {
	ID    ChainID
	Rules []Rule
}

// Compare orders by ID.
func (c Chain) Compare(o Chain) int { return cmp.Compare(c.ID, o.ID) }

// Same reports whether the rules of both are one piece of memory, as those of two Programs are
// that did not change.
func (c Chain) Same(o Chain) bool {
	return len(c.Rules) == len(o.Rules) && (len(c.Rules) == 0 || &c.Rules[0] == &o.Rules[0])
}

// Verdict is what becomes of a packet that a Rule matches.
type Verdict uint8

// The verdicts. The zero value is none of them.
const (
	// Allow ends the judgement of this direction: return to the base chain.
	Allow Verdict = iota + 1
	// Deny drops the packet.
	Deny
	// Pass goes on in the chain Rule.Next, and never comes back from there (goto).
	Pass
	// Log writes a line about the packet, limited in rate, and goes on.
	Log
	// Continue leaves the packet to the hooks behind: only in chains of host endpoints
	// before connections are known, or before services are resolved.
	Continue
)

// Rule is a match and a verdict. Every criterion that is set has to hold; the
// zero value of each stands for "any". One rule of a policy may be several Rules
// that follow each other and carry the same Origin.
type Rule struct {
	// Family is 4 or 6 if the rule is for packets of that IP version only, else 0.
	// A rule of family 0 that names sets looks at the members of the packet's family.
	Family model.Family
	// Protocol and NotProtocol are IP protocol numbers; 0: any, none.
	Protocol, NotProtocol uint8
	// ICMP and NotICMP are set only with Family and the Protocol that goes with it:
	// 4 and 1, or 6 and 58.
	ICMP, NotICMP       ICMP
	Source, Destination Side

	Verdict Verdict
	Next    ChainID // of Pass
	Origin  Origin
}

// Side is what a Rule asks of the source or the destination of a packet.
type Side struct {
	// In are sets that the packet has to be in, all of them; NotIn are sets of which
	// it may be in none. Sorted. A set of kind Ports is asked for address, protocol and
	// port of this side, the others for the address.
	In, NotIn []SetID
	// Ports has the port of this side, NotPorts has it not. Sorted, disjoint, not
	// touching. Set only with Protocol 6 (TCP), 17 (UDP) or 132 (SCTP).
	Ports, NotPorts []PortRange
}

// PortRange is the ports First to Last, both included.
type PortRange struct {
	First, Last uint16
}

// ICMP is a type of ICMP or ICMPv6, with or without a code. The zero value is
// no condition.
type ICMP struct {
	Set     bool
	Type    uint8
	HasCode bool
	Code    uint8
}

// Origin says where a Rule comes from, for counters and for people.
type Origin struct {
	Tier   string
	Policy model.Ref // zero: the end of the tier, or of all tiers
	// Index counts the rules of the policy in the direction of the chain from 0; -1:
	// the end of the tier.
	Index int
}

// SetID names a Set by what it holds, not by its members, so that it stays the
// same while members come and go. It is made of a-z, 0-9 and "-", at most 24 bytes.
// It begins with "a-", "n-" or "p-" for the kind.
type SetID string

// SetKind says what the members of a Set are.
type SetKind uint8

// The kinds of sets.
const (
	Addresses SetKind = iota + 1 // single addresses: a hash
	Nets                         // ranges of addresses: an interval set
	Ports                        // address, protocol, port: a hash of the three
)

// Set has members of both IP versions, IPv4 first. Only those of its kind are set.
type Set struct {
	ID   SetID
	Kind SetKind
	Name string // what it stands for, for people: a selector, a list of CIDRs

	Addresses model.Sorted[netip.Addr]
	// Nets are disjoint and do not touch: neither ends where another begins. A
	// range may reach to the last address of its IP version.
	Nets  model.Sorted[Range]
	Ports model.Sorted[AddrPort]
}

// Compare orders by ID.
func (s *Set) Compare(o *Set) int { return cmp.Compare(s.ID, o.ID) }

// Range is the addresses First to Last, both included, of one IP version.
type Range struct {
	First, Last netip.Addr
}

// AddrPort is a port that an endpoint serves under a name.
type AddrPort struct {
	Addr     netip.Addr
	Protocol uint8 // 6 (TCP), 17 (UDP), 132 (SCTP)
	Port     uint16
}

// Compare orders by first and last port.
func (p PortRange) Compare(o PortRange) int {
	return cmp.Or(cmp.Compare(p.First, o.First), cmp.Compare(p.Last, o.Last))
}

// Compare orders by IP version and address.
func (r Range) Compare(o Range) int {
	return cmp.Or(r.First.Compare(o.First), r.Last.Compare(o.Last))
}

// Compare orders by IP version, address, protocol, port.
func (p AddrPort) Compare(o AddrPort) int {
	return cmp.Or(p.Addr.Compare(o.Addr), cmp.Compare(p.Protocol, o.Protocol), cmp.Compare(p.Port, o.Port))
}
