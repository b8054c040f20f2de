package gobgp

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/osrg/gobgp/v4/api"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// tag holds a route to the rest of a rule that takes several statements. It
// never leaves the chain.
const tag = "4294967295:109:1"

type policyID struct {
	direction bgp.Direction
	name      string
}

func byID(ps []bgp.Policy) map[policyID]bgp.Policy {
	m := make(map[policyID]bgp.Policy, len(ps))
	for _, p := range ps {
		m[policyID{p.Direction, p.Name}] = p
	}
	return m
}

// compiler turns policies into GoBGP's statements and defined sets.
type compiler struct {
	sets       []*api.DefinedSet
	names      map[string]string // content of a set → its name
	statements []*api.Statement
	prefix     string // of statement names
	suffix     string // of all names
}

// compilePolicies makes the two chains, with names that end in suffix.
func compilePolicies(cfg bgp.Config, suffix string) *chains {
	c := &compiler{names: map[string]string{}, suffix: suffix}
	out := &chains{}
	for _, dir := range []bgp.Direction{bgp.Import, bgp.Export} {
		c.statements = nil
		if dir == bgp.Import {
			// GoBGP runs own paths through the import chain too
			c.prefix = "own"
			c.add(&api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT})
		}
		users := policyUsers(cfg, dir)
		for i, p := range chainOrder(cfg, dir, users) {
			c.prefix = string(dir) + strconv.Itoa(i)
			peers := users[p.Name]
			if i == len(users)-1 {
				peers = nil // the last policy is for all who are left
			}
			c.policy(p, peers)
		}
		out.policies = append(out.policies, &api.Policy{Name: string(dir) + suffix, Statements: c.statements})
	}
	out.sets = c.sets
	return out
}

func policyUsers(cfg bgp.Config, d bgp.Direction) map[string][]netip.Addr {
	users := map[string][]netip.Addr{}
	for _, p := range cfg.Peers {
		name := p.Import
		if d == bgp.Export {
			name = p.Export
		}
		users[name] = append(users[name], p.Address)
	}
	return users
}

// chainOrder lists the policies in use, the one with the most peers last: it
// needs no peer condition, which is the only cost that grows with the mesh.
func chainOrder(cfg bgp.Config, d bgp.Direction, users map[string][]netip.Addr) []bgp.Policy {
	var out []bgp.Policy
	for _, p := range cfg.Policies {
		if p.Direction == d && len(users[p.Name]) > 0 {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(x, y bgp.Policy) int { return len(users[x.Name]) - len(users[y.Name]) })
	return out
}

func (c *compiler) policy(p bgp.Policy, peers []netip.Addr) {
	for _, r := range p.Rules {
		for _, cond := range c.conditions(r.Match, p, peers) {
			c.rule(r, p, cond)
		}
	}
	// past the last rule: the policy's own default, before another policy's
	// statements could see the route
	cond := &api.Conditions{NeighborSet: c.neighbors(peers)}
	c.add(cond, &api.Actions{RouteAction: routeAction(map[bgp.Direction]bgp.Action{bgp.Import: bgp.Accept, bgp.Export: bgp.Reject}[p.Direction])})
}

// rule emits the statements of one rule. GoBGP prepends one AS number a
// statement; a longer list takes several, held together by a tag because the
// first of them may change what the others would match on.
func (c *compiler) rule(r bgp.Rule, p bgp.Policy, cond *api.Conditions) {
	runs := prependRuns(r.Set.PrependASPath, p)
	actions := setActions(r.Set)
	if len(runs) > 0 {
		actions.AsPrepend = runs[0]
	}
	if len(runs) < 2 {
		actions.RouteAction = routeAction(r.Action)
		c.add(cond, actions)
		return
	}
	tagged := &api.Conditions{LargeCommunitySet: c.set(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, []string{"^" + tag + "$"})}
	if actions.LargeCommunity == nil {
		actions.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD}
	}
	actions.LargeCommunity.Communities = append(actions.LargeCommunity.Communities, tag)
	c.add(cond, actions)
	for _, run := range runs[1:] {
		c.add(tagged, &api.Actions{AsPrepend: run})
	}
	c.add(tagged, &api.Actions{
		RouteAction:    routeAction(r.Action),
		LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{"^" + tag + "$"}},
	})
}

func (c *compiler) add(cond *api.Conditions, a *api.Actions) {
	c.statements = append(c.statements, &api.Statement{
		Name: fmt.Sprintf("%s-%d%s", c.prefix, len(c.statements), c.suffix), Conditions: cond, Actions: a,
	})
}

// conditions gives the alternatives of a match: a GoBGP statement matches one
// family's prefixes and one kind of source.
func (c *compiler) conditions(m bgp.Match, p bgp.Policy, peers []netip.Addr) []*api.Conditions {
	var out []*api.Conditions
	for _, px := range c.prefixes(m) {
		for _, src := range routeTypes(m.Source) {
			cond := &api.Conditions{NeighborSet: c.neighbors(peers), PrefixSet: px, RouteType: src}
			if m.Family != 0 && px == nil {
				cond.AfiSafiIn = []*api.Family{apiFamily(m.Family)}
			}
			for _, a := range m.NextHops {
				cond.NextHopInList = append(cond.NextHopInList, a.String())
			}
			for _, p := range m.NextHopIn {
				cond.NextHopInList = append(cond.NextHopInList, p.String())
			}
			c.attributes(cond, m, p)
			out = append(out, cond)
		}
	}
	return out
}

func (c *compiler) attributes(cond *api.Conditions, m bgp.Match, p bgp.Policy) {
	switch {
	case m.Community == "":
	case bgp.IsLarge(m.Community):
		cond.LargeCommunitySet = c.set(api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, []string{"^" + m.Community + "$"})
	default:
		cond.CommunitySet = c.set(api.DefinedType_DEFINED_TYPE_COMMUNITY, []string{"^" + m.Community + "$"})
	}
	if len(m.ASPathPrefix) > 0 {
		cond.AsPathSet = c.set(api.DefinedType_DEFINED_TYPE_AS_PATH, []string{asPathPattern(m.ASPathPrefix, p)})
	}
	if m.LocalPref != nil {
		cond.LocalPrefEq = &api.LocalPrefEq{Value: *m.LocalPref}
	}
}

// asPathPattern matches paths that begin with ps. Towards external peers our
// own AS already stands in front when the policy sees the path.
func asPathPattern(ps []model.ASN, p bgp.Policy) string {
	words := make([]string, 0, len(ps)+1)
	if p.Direction == bgp.Export && p.External {
		words = append(words, p.LocalASN.String())
	}
	for _, a := range ps {
		words = append(words, a.String())
	}
	return "^" + strings.Join(words, " ") + "( .*)?$"
}

func routeTypes(s bgp.Source) []api.Conditions_RouteType {
	switch s {
	case bgp.SourceLocal:
		return []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_LOCAL}
	case bgp.SourceInternal:
		return []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_INTERNAL}
	case bgp.SourceExternal:
		return []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_EXTERNAL}
	case bgp.SourcePeers:
		return []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_INTERNAL, api.Conditions_ROUTE_TYPE_EXTERNAL}
	}
	return []api.Conditions_RouteType{api.Conditions_ROUTE_TYPE_UNSPECIFIED}
}

// prefixes gives one set for each family a match names prefixes of, or a
// single nil when it names none.
func (c *compiler) prefixes(m bgp.Match) []*api.MatchSet {
	if len(m.Prefixes) == 0 {
		return []*api.MatchSet{nil}
	}
	var out []*api.MatchSet
	for _, f := range model.Families {
		var list []*api.Prefix
		for _, r := range m.Prefixes {
			if f.Has(r.Prefix.Addr()) {
				list = append(list, &api.Prefix{IpPrefix: r.Prefix.String(), MaskLengthMin: uint32(r.Min), MaskLengthMax: uint32(r.Max)})
			}
		}
		if len(list) == 0 {
			continue
		}
		ms := c.prefixSet(list)
		if m.NotPrefixes {
			ms.Type = api.MatchSet_TYPE_INVERT
		}
		out = append(out, ms)
	}
	return out
}

func (c *compiler) prefixSet(list []*api.Prefix) *api.MatchSet {
	key := "px"
	for _, p := range list {
		key += fmt.Sprintf(" %s{%d,%d}", p.IpPrefix, p.MaskLengthMin, p.MaskLengthMax)
	}
	name, ok := c.names[key]
	if !ok {
		name = "prefixes" + strconv.Itoa(len(c.sets)) + c.suffix
		c.names[key] = name
		c.sets = append(c.sets, &api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_PREFIX, Name: name, Prefixes: list})
	}
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
}

// neighbors never names an empty set: GoBGP takes one as "every peer".
func (c *compiler) neighbors(peers []netip.Addr) *api.MatchSet {
	if len(peers) == 0 {
		return nil
	}
	list := make([]string, 0, len(peers))
	for _, a := range peers {
		list = append(list, netip.PrefixFrom(a.WithZone(""), a.BitLen()).String())
	}
	return c.set(api.DefinedType_DEFINED_TYPE_NEIGHBOR, list)
}

func (c *compiler) set(t api.DefinedType, list []string) *api.MatchSet {
	key := t.String() + " " + strings.Join(list, " ")
	name, ok := c.names[key]
	if !ok {
		name = "set" + strconv.Itoa(len(c.sets)) + c.suffix
		c.names[key] = name
		c.sets = append(c.sets, &api.DefinedSet{DefinedType: t, Name: name, List: list})
	}
	return &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: name}
}

func routeAction(a bgp.Action) api.RouteAction {
	switch a {
	case bgp.Accept:
		return api.RouteAction_ROUTE_ACTION_ACCEPT
	case bgp.Reject:
		return api.RouteAction_ROUTE_ACTION_REJECT
	}
	return api.RouteAction_ROUTE_ACTION_UNSPECIFIED
}

func setActions(s bgp.Set) *api.Actions {
	a := &api.Actions{}
	for _, c := range s.Communities {
		to := &a.Community
		if bgp.IsLarge(c) {
			to = &a.LargeCommunity
		}
		if *to == nil {
			*to = &api.CommunityAction{Type: api.CommunityAction_TYPE_ADD}
		}
		(*to).Communities = append((*to).Communities, c)
	}
	if s.LocalPref != nil {
		// GoBGP reads 0 as "leave it"; 1 is as far below every real preference
		a.LocalPref = &api.LocalPrefAction{Value: max(*s.LocalPref, 1)}
	}
	switch {
	case s.NextHop == model.NextHopKeep:
		a.Nexthop = &api.NexthopAction{Unchanged: true}
	case s.NextHopAddr.IsValid():
		a.Nexthop = &api.NexthopAction{Address: s.NextHopAddr.String()}
	case s.NextHop == model.NextHopSelf:
		a.Nexthop = &api.NexthopAction{Self: true}
	}
	return a
}

// prependRuns gives the prepend actions that leave list in front of the path,
// last AS number first. Towards external peers our own AS must stay leftmost
// (RFC 4271 section 5.1.2; peers check it), and it is there already when the
// policy sees the path: it is put in front once more, which keeps the length a
// list of our own AS numbers asks for.
func prependRuns(list []model.ASN, p bgp.Policy) []*api.AsPrependAction {
	if len(list) == 0 {
		return nil
	}
	if p.Direction == bgp.Export && p.External && list[0] != p.LocalASN {
		list = append([]model.ASN{p.LocalASN}, list...)
	}
	var runs []*api.AsPrependAction
	for _, a := range slices.Backward(list) {
		if n := len(runs); n > 0 && runs[n-1].Asn == uint32(a) {
			runs[n-1].Repeat++
			continue
		}
		runs = append(runs, &api.AsPrependAction{Asn: uint32(a), Repeat: 1})
	}
	return runs
}
