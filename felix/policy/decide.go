package policy

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Packet is the first packet of a connection.
type Packet struct {
	Source, Destination         netip.Addr // of one IP version
	Protocol                    uint8      // IP protocol number
	SourcePort, DestinationPort uint16     // of TCP, UDP, SCTP; else 0
	ICMPType, ICMPCode          uint8      // of ICMP and ICMPv6; else 0
}

// Decide walks a chain as the kernel does. It gives the rules that matched: those
// that passed on, and last the one that decided, whose verdict is Allow, Deny or Continue.
// Log decides nothing and is left out. No rule: the chain is "", and everything is
// allowed. A chain that does not exist, or that leads to itself, denies.
func (p Program) Decide(id ChainID, k Packet) []Rule {
	var path []Rule
	for range p.Chains.Len() + 1 {
		if id == "" {
			return path
		}
		rules := p.Chain(id).Rules
		i := slices.IndexFunc(rules, func(r Rule) bool { return r.Verdict != Log && p.matches(&r, &k) })
		if i < 0 {
			break
		}
		r := rules[i]
		if path = append(path, r); r.Verdict != Pass {
			return path
		}
		id = r.Next
	}
	return append(path, Rule{Verdict: Deny, Origin: Origin{Index: -1}})
}

// Allowed reports whether what Decide gives lets a packet through, or on.
func Allowed(path []Rule) bool { return len(path) == 0 || path[len(path)-1].Verdict != Deny }

func (p Program) matches(r *Rule, k *Packet) bool {
	is := func(m ICMP) bool { return m.Type == k.ICMPType && (!m.HasCode || m.Code == k.ICMPCode) }
	return (r.Family == 0 || r.Family.Has(k.Source)) && (r.Protocol == 0 || r.Protocol == k.Protocol) &&
		(r.NotProtocol == 0 || r.NotProtocol != k.Protocol) && (!r.ICMP.Set || is(r.ICMP)) && (!r.NotICMP.Set || !is(r.NotICMP)) &&
		p.matchesSide(&r.Source, AddrPort{k.Source, k.Protocol, k.SourcePort}) &&
		p.matchesSide(&r.Destination, AddrPort{k.Destination, k.Protocol, k.DestinationPort})
}

func (p Program) matchesSide(s *Side, at AddrPort) bool {
	in := func(id SetID) bool { return p.Set(id).has(at) }
	has := func(r PortRange) bool { return r.First <= at.Port && at.Port <= r.Last }
	return !slices.ContainsFunc(s.In, func(id SetID) bool { return !in(id) }) && !slices.ContainsFunc(s.NotIn, in) &&
		(len(s.Ports) == 0 || slices.ContainsFunc(s.Ports, has)) && !slices.ContainsFunc(s.NotPorts, has)
}

// has asks a set of its kind: for the address, or for all of at.
func (s Set) has(at AddrPort) bool {
	_, address := s.Addresses.Get(at.Addr)
	_, port := s.Ports.Get(at)
	for r := range s.Nets.All() {
		if r.First.Is4() == at.Addr.Is4() && r.First.Compare(at.Addr) <= 0 && at.Addr.Compare(r.Last) <= 0 {
			return true
		}
	}
	return address || port
}

// Selecting gives the policies that select a pod, in any direction, in the order
// in which they are looked at. None are given for a pod that is not known.
func Selecting(in Input, namespace, name string) []model.Policy {
	return Selections(in)(namespace, name)
}

// Selections is Selecting for many pods.
func Selections(in Input) func(namespace, name string) []model.Policy {
	w := newWorld(in, Program{})
	w.update(in.View.Pods, in.Endpoints)
	return func(namespace, name string) []model.Policy {
		pod := w.byKey[podKey{namespace, name}]
		if pod == nil || pod.group == nil {
			return nil
		}
		var out []model.Policy
		for _, p := range w.selecting(pod.group) {
			if !p.HostOnly() {
				out = append(out, *p.Policy)
			}
		}
		return out
	}
}
