package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Direction is the way routes go through a policy.
type Direction string

// The directions.
const (
	Import Direction = "import"
	Export Direction = "export"
)

// Policy is an ordered list of rules. The first rule that matches and does not
// continue decides; past the last rule an import is accepted and an export is
// rejected.
type Policy struct {
	Direction Direction
	Name      string // unique within its direction
	// External and LocalASN are those of the peers that use the policy: AS path
	// rules see the path without our own AS, which is put in front of it only
	// towards external peers.
	External bool
	LocalASN model.ASN
	Rules    []Rule
}

// Action is what a rule does with a route that matches.
type Action string

// The actions.
const (
	Accept   Action = "accept"
	Reject   Action = "reject"
	Continue Action = "continue" // apply Set and go on with the next rule

	Unknown Action = "unknown" // only of Decide: it depends on what is not known of the route
)

// Rule is one line of a policy.
type Rule struct {
	From   string // where the rule comes from, for whoever reads the text form
	Match  Match
	Action Action
	Set    Set
}

// Source tells who made a route.
type Source string

// The sources. Empty means any.
const (
	SourceLocal    Source = "local"    // this node's own paths
	SourcePeers    Source = "peers"    // learned over BGP
	SourceInternal Source = "internal" // learned over iBGP
	SourceExternal Source = "external" // learned over eBGP
)

// Match is a conjunction; zero fields match every route.
type Match struct {
	Family       model.Family  // 0: both
	Prefixes     []PrefixRange // one of them must match
	NotPrefixes  bool          // none of Prefixes may match
	Source       Source
	NextHops     []netip.Addr   // one of them must be the next hop as received
	NextHopIn    []netip.Prefix // the next hop as received must lie in one of them
	Community    string         // "65000:1" or "65000:1:2" (large, RFC 8092)
	ASPathPrefix []model.ASN
	LocalPref    *uint32
}

// PrefixRange matches prefixes inside Prefix whose length is Min to Max.
type PrefixRange struct {
	Prefix   netip.Prefix
	Min, Max int
}

// Exactly matches p and nothing else.
func Exactly(p netip.Prefix) PrefixRange { return PrefixRange{p, p.Bits(), p.Bits()} }

// Inside matches p and everything in it.
func Inside(p netip.Prefix) PrefixRange {
	return PrefixRange{p, p.Bits(), p.Addr().BitLen()}
}

// longerThan matches everything in p but p itself; ok is false for a host
// prefix, which has nothing in it.
func longerThan(p netip.Prefix) (r PrefixRange, ok bool) {
	return PrefixRange{p, p.Bits() + 1, p.Addr().BitLen()}, p.Bits() < p.Addr().BitLen()
}

// Set changes a route; zero fields change nothing.
type Set struct {
	Communities   []string // added; "65000:1" or "65000:1:2"
	PrependASPath []model.ASN
	LocalPref     *uint32
	// NextHop leaves it to BGP when it is empty: the own address towards external peers,
	// as it is towards internal ones. NextHopSelf: the session's local address, or
	// NextHopAddr.
	NextHop     model.NextHopMode
	NextHopAddr netip.Addr
}

// SamePolicies reports whether two policies decide alike.
func SamePolicies(x, y Policy) bool {
	return x.External == y.External && x.LocalASN == y.LocalASN && slices.EqualFunc(x.Rules, y.Rules, Rule.same)
}

// readsAs reports whether two policies are one, whatever it is called: they decide
// alike, and for reasons of the same names.
func (p Policy) readsAs(o Policy) bool {
	from := func(x, y Rule) bool { return x.From == y.From }
	return p.Direction == o.Direction && SamePolicies(p, o) && slices.EqualFunc(p.Rules, o.Rules, from)
}

// same reports whether two rules do the same, wherever they come from.
func (r Rule) same(o Rule) bool {
	return r.Action == o.Action && r.Match.same(o.Match) && r.Set.same(o.Set)
}

func (m Match) same(o Match) bool {
	return m.Family == o.Family && m.NotPrefixes == o.NotPrefixes && m.Source == o.Source && m.Community == o.Community &&
		slices.Equal(m.Prefixes, o.Prefixes) && slices.Equal(m.NextHops, o.NextHops) && slices.Equal(m.NextHopIn, o.NextHopIn) &&
		slices.Equal(m.ASPathPrefix, o.ASPathPrefix) && samePref(m.LocalPref, o.LocalPref)
}

func (s Set) same(o Set) bool {
	return s.NextHop == o.NextHop && s.NextHopAddr == o.NextHopAddr && slices.Equal(s.Communities, o.Communities) &&
		slices.Equal(s.PrependASPath, o.PrependASPath) && samePref(s.LocalPref, o.LocalPref)
}

// samePref compares two LOCAL_PREFs, of which each may be unsaid.
func samePref(x, y *uint32) bool {
	if x == nil || y == nil {
		return x == y
	}
	return *x == *y
}
