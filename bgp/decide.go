package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Route is a route as a policy sees it.
type Route struct {
	Prefix      netip.Prefix
	NextHop     netip.Addr // as received
	Local       bool       // one of the node's own paths
	External    bool       // learned over eBGP
	Communities []string   // plain and large, as ParseCommunity spells them
	ASPath      []model.ASN
	LocalPref   uint32

	// Partial: nothing is known but Prefix and Local.
	Partial bool
}

// Decide runs a route through the policy and tells what becomes of it and
// which rule says so (Rule.From): the answer to "why is it not there". The
// speaker's own evaluation is a translation of the same rules. Of a partial route it
// is Unknown where a rule that may match would decide otherwise than the first that
// does; then that rule is named.
func (p Policy) Decide(r Route) (Action, string) {
	r.Communities, r.ASPath = slices.Clone(r.Communities), slices.Clone(r.ASPath)
	action, from := Accept, "default"
	if p.Direction == Export {
		action = Reject
	}
	var doubts []Rule
	for _, rule := range p.Rules {
		if !rule.Match.matches(r) {
			continue
		}
		if r.Partial && rule.Match.looksFurther() {
			doubts = append(doubts, rule)
			continue
		}
		r.apply(rule.Set)
		if rule.Action != Continue {
			action, from = rule.Action, rule.From
			break
		}
	}
	for _, d := range doubts {
		if d.Action != Continue && d.Action != action {
			return Unknown, d.From
		}
	}
	return action, from
}

// looksFurther reports whether a match depends on what a partial route lacks.
func (m Match) looksFurther() bool {
	return m.Source == SourceInternal || m.Source == SourceExternal ||
		len(m.NextHops)+len(m.NextHopIn)+len(m.ASPathPrefix) > 0 || m.Community != "" || m.LocalPref != nil
}

// matches reports whether a route matches, and of a partial one whether it may.
func (m Match) matches(r Route) bool {
	switch {
	case m.Family != 0 && m.Family != model.FamilyOf(r.Prefix.Addr()):
		return false
	case len(m.Prefixes) > 0 && !m.matchesPrefix(r.Prefix):
		return false
	case r.Partial:
		return m.Source == "" || (m.Source == SourceLocal) == r.Local
	case !m.Source.made(r):
		return false
	case len(m.NextHops) > 0 && !slices.Contains(m.NextHops, r.NextHop):
		return false
	case len(m.NextHopIn) > 0 && !insideAny(m.NextHopIn, host(r.NextHop.WithZone(""))):
		return false
	case m.Community != "" && !slices.Contains(r.Communities, m.Community):
		return false
	case len(m.ASPathPrefix) > len(r.ASPath) || !slices.Equal(m.ASPathPrefix, r.ASPath[:len(m.ASPathPrefix)]):
		return false
	case m.LocalPref != nil && *m.LocalPref != r.LocalPref:
		return false
	}
	return true
}

func (s Source) made(r Route) bool {
	switch s {
	case SourceLocal:
		return r.Local
	case SourcePeers:
		return !r.Local
	case SourceInternal:
		return !r.Local && !r.External
	case SourceExternal:
		return !r.Local && r.External
	}
	return true
}

// matchesPrefix: a list speaks only of the families that stand in it, also
// when it is turned around.
func (m Match) matchesPrefix(p netip.Prefix) bool {
	inside, speaks := false, false
	for _, g := range m.Prefixes {
		if model.FamilyOf(g.Prefix.Addr()) != model.FamilyOf(p.Addr()) {
			continue
		}
		speaks = true
		inside = inside || g.Prefix.Contains(p.Addr()) && g.Min <= p.Bits() && p.Bits() <= g.Max
	}
	return speaks && inside != m.NotPrefixes
}

func (r *Route) apply(s Set) {
	for _, c := range s.Communities {
		if !slices.Contains(r.Communities, c) {
			r.Communities = append(r.Communities, c)
		}
	}
	r.ASPath = append(slices.Clone(s.PrependASPath), r.ASPath...)
	if s.LocalPref != nil {
		r.LocalPref = *s.LocalPref
	}
}

// Policy finds a policy by its direction and name.
func (c Config) Policy(d Direction, name string) (Policy, bool) {
	for _, p := range c.Policies {
		if p.Direction == d && p.Name == name {
			return p, true
		}
	}
	return Policy{}, false
}
