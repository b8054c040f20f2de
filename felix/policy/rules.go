package policy

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/muslin-net/muslin/pkg/model"
)

// Protocols that have ports.
const (
	tcp  = 6
	udp  = 17
	sctp = 132
)

func hasPorts(protocol uint8) bool { return protocol == tcp || protocol == udp || protocol == sctp }

// tierChain builds the chain of one tier: its policies' rules, then its end, up to
// the first that leaves nothing for those behind it. undecided is what becomes of a
// packet that the last tier passes on.
func (w *world) tierChain(t tier, prefix string, d direction, next ChainID, undecided Rule) ChainID {
	pass := func(r Rule) Rule {
		r.Verdict, r.Next = Pass, next
		if next == "" {
			r.Verdict = undecided.Verdict
		}
		return r
	}
	var rules []Rule
	for _, p := range t.policies {
		for _, r := range w.policyRules(p, d) {
			if r.Verdict == Pass {
				r = pass(r)
			}
			rules = append(rules, r)
		}
	}
	end := Rule{Verdict: Deny, Origin: Origin{Tier: t.Name, Index: -1}}
	if t.Pass {
		end = pass(end)
	}
	rules = append(rules, end)
	return w.keep(t.chainID(prefix, d, next, undecided.Verdict), rules)
}

// matchesAll reports whether no criterion is set.
func (r *Rule) matchesAll() bool {
	return r.Family == 0 && r.Protocol == 0 && r.NotProtocol == 0 && !r.ICMP.Set && !r.NotICMP.Set &&
		r.Source.matchesAll() && r.Destination.matchesAll()
}

func (s *Side) matchesAll() bool { return len(s.In)+len(s.NotIn)+len(s.Ports)+len(s.NotPorts) == 0 }

// policyRules gives what the rules of a policy become; Next of a Pass is not set.
func (w *world) policyRules(p *policy, d direction) []Rule {
	if p.built[d] {
		return p.rules[d]
	}
	w.rendered = append(w.rendered, p)
	rules := p.directed(d)
	for i := range rules {
		needs := needsOf(&rules[i], d)
		p.needs[d] = append(p.needs[d], needs...)
		for _, r := range w.rule(&rules[i], d, w.knows(needs)) {
			r.Origin = Origin{Tier: p.Tier, Policy: p.Object, Index: rules[i].Index}
			p.rules[d] = append(p.rules[d], r)
		}
	}
	p.built[d] = true
	return p.rules[d]
}

// rule gives the Rules that together match what r does; known is whether what it needs is.
func (w *world) rule(r *model.PolicyRule, d direction, known bool) []Rule {
	verdict := map[model.PolicyAction]Verdict{
		model.PolicyAllow: Allow, model.PolicyDeny: Deny, model.PolicyPass: Pass, model.PolicyLog: Log,
	}[r.Action]
	if r.Unreadable || !known || verdict == 0 || !makesSense(r) {
		if verdict == Allow || verdict == Log {
			return nil
		}
		return []Rule{{Verdict: Deny}}
	}
	family, some := families(r)
	if !some {
		return nil
	}
	base := Rule{
		Family: family, Protocol: r.Protocol, NotProtocol: r.NotProtocol,
		ICMP: icmp(r.ICMP), NotICMP: icmp(r.NotICMP), Verdict: verdict,
	}
	var out []Rule
	for _, src := range w.side(&r.Source, r.Protocol, d, false) {
		for _, dst := range w.side(&r.Destination, r.Protocol, d, true) {
			base.Source, base.Destination = src, dst
			out = append(out, base)
		}
	}
	return out
}

// makesSense reports whether what the rule asks for can be asked of a packet.
func makesSense(r *model.PolicyRule) bool {
	icmpOf := map[uint8]uint8{1: 4, 58: 6}[r.Protocol] // the IP version
	if (r.ICMP != nil || r.NotICMP != nil) && (icmpOf == 0 || r.IPVersion != icmpOf) {
		return false
	}
	for _, list := range [][]model.PolicyPort{r.Source.Ports, r.Source.NotPorts, r.Destination.Ports, r.Destination.NotPorts} {
		for _, p := range list {
			if p.Name == "" && (!hasPorts(r.Protocol) || p.Last < p.First) {
				return false
			}
		}
	}
	return true
}

func icmp(m *model.ICMPMatch) ICMP {
	if m == nil {
		return ICMP{}
	}
	out := ICMP{Set: true, Type: m.Type}
	if m.Code != nil {
		out.HasCode, out.Code = true, *m.Code
	}
	return out
}

// families gives the IP version a rule is for, 0 for both: that it names, and of
// every list of nets those that the list has any of. some is false if none is left.
func families(r *model.PolicyRule) (family model.Family, some bool) {
	v4, v6 := r.IPVersion != 6, r.IPVersion != 4
	for _, list := range netLists(r) {
		if len(list) == 0 {
			continue
		}
		v4 = v4 && slices.ContainsFunc(list, is4)
		v6 = v6 && slices.ContainsFunc(list, func(p netip.Prefix) bool { return !is4(p) })
	}
	switch {
	case v4 && v6:
		return 0, true
	case v4:
		return model.IPv4, true
	case v6:
		return model.IPv6, true
	}
	return 0, false
}

func is4(p netip.Prefix) bool { return plain(p).Addr().Is4() }

func netLists(r *model.PolicyRule) [][]netip.Prefix {
	return [][]netip.Prefix{r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets}
}

// oneFamily says so where a rule is for one IP version only because of what it
// leaves out: few who write it mean that.
func oneFamily(object model.Ref, field string, rules []model.PolicyRule) []model.Problem {
	var out []model.Problem
	for i := range rules {
		r := &rules[i]
		if r.Unreadable || r.IPVersion != 0 || len(r.Source.Nets)+len(r.Destination.Nets) > 0 || len(r.Source.NotNets)+len(r.Destination.NotNets) == 0 {
			continue
		}
		if f, some := families(r); some && f != 0 {
			out = append(out, model.Problem{Object: object, Field: field + "[" + strconv.Itoa(r.Index) + "]", Reason: "OneIPVersion",
				Message: "notNets has nets of IPv" + strconv.Itoa(int(f)) + " only, so the rule matches no packet of the other version; set ipVersion, or write a rule for the other one, too"})
		}
	}
	return out
}

// side gives the Sides that together match what a peer does, in a rule of that
// direction.
func (w *world) side(p *model.PolicyPeer, protocol uint8, d direction, destination bool) []Side {
	own := destination == (d == ingress) // the side is that of the endpoint itself
	selector := p.Selector
	if p.NotSelector != nil && selector != nil {
		selector = except{selector, p.NotSelector}
	}
	base, some := w.everywhere(p, selector, protocol, own)
	if !some {
		return nil
	}
	if p.Service != "" {
		base = base.in(w.serviceSet(p.Service, destination))
	}
	var out []Side
	numbers, names := splitPorts(p.Ports)
	if len(names) > 0 {
		out = append(out, base.in(w.portSet(selector, own, protocol, names)))
	}
	if len(names) > 0 && len(numbers) == 0 {
		return out
	}
	base.Ports = numbers
	if selector == nil {
		return append(out, base)
	}
	for _, id := range w.selected(selector) {
		out = append(out, base.in(id))
	}
	return out
}

// everywhere gives what all Sides of a peer have in common: its nets, and what it
// is not. some is false if nothing can match.
func (w *world) everywhere(p *model.PolicyPeer, selector model.Selector, protocol uint8, own bool) (base Side, some bool) {
	if p.NotSelector != nil && p.Selector == nil {
		base.NotIn = w.selected(p.NotSelector)
	}
	not := mergePrefixes(p.NotNets)
	if len(p.Nets) > 0 {
		left := subtract(mergePrefixes(p.Nets), not)
		if len(left) == 0 {
			return base, false // what nets has is taken away again
		}
		base.In = []SetID{w.rangeSet(left)}
	} else if len(not) > 0 {
		base.NotIn = append(base.NotIn, w.rangeSet(not))
	}
	if p.Nodes != nil {
		addresses := w.addressesOf(p.Nodes)
		if len(addresses) == 0 {
			return base, false
		}
		base = base.in(w.rangeSet(addresses))
	}
	numbers, names := splitPorts(p.NotPorts)
	base.NotPorts = numbers
	if len(names) > 0 {
		base.NotIn = append(base.NotIn, w.portSet(selector, own, protocol, names))
	}
	slices.Sort(base.NotIn)
	return base, true
}

// in adds a set that the side has to be in.
func (s Side) in(id SetID) Side {
	s.In = append(slices.Clone(s.In), id)
	slices.Sort(s.In)
	return s
}

// splitPorts gives numbers, merged, and names of a list.
func splitPorts(list []model.PolicyPort) (numbers []PortRange, names []string) {
	for _, p := range list {
		if p.Name != "" {
			names = append(names, p.Name)
		} else {
			numbers = append(numbers, PortRange{p.First, p.Last})
		}
	}
	slices.SortFunc(numbers, PortRange.Compare)
	out := numbers[:0]
	for _, p := range numbers {
		if n := len(out); n > 0 && int(p.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, p.Last)
			continue
		}
		out = append(out, p)
	}
	return out, names
}

// except selects what one selector does and another does not.
type except struct{ of, not model.Selector }

func (e except) Matches(labels map[string]string) bool {
	return e.of.Matches(labels) && !e.not.Matches(labels)
}

func (e except) String() string { return "(" + e.of.String() + " && !" + e.not.String() + ")" }
