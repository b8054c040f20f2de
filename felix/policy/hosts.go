package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Host is which chains judge the packets of one interface of the node itself, at each
// of the kernel's hooks. An empty ChainID: everything passes there.
type Host struct {
	Input, Output             ChainID // of the node's own packets
	ForwardIn, ForwardOut     ChainID // of those that it forwards, as they come in and leave
	PreDNAT                   ChainID // of all that come in, before services are resolved
	UntrackedIn, UntrackedOut ChainID // of all, before connections are known
}

// chains gives all of them.
func (h Host) chains() []ChainID {
	return []ChainID{h.Input, h.Output, h.ForwardIn, h.ForwardOut, h.PreDNAT, h.UntrackedIn, h.UntrackedOut}
}

// hook is where in the kernel a chain of a host endpoint judges.
type hook int

const (
	normal hook = iota
	forward
	preDNAT
	untracked
)

// prefixes begin the ids of chains of a hook, for ingress and egress.
var prefixes = map[hook][2]string{normal: {"i-", "e-"}, forward: {"i-", "e-"}, preDNAT: {"pi-", ""}, untracked: {"ui-", "ue-"}}

// evaluatesAt reports whether a policy is for the packets of a host endpoint at a hook.
func (p *policy) evaluatesAt(h hook, d direction) bool {
	directed := p.Ingress
	if d == egress {
		directed = p.Egress
	}
	switch h {
	case untracked:
		return directed && p.Untracked
	case preDNAT:
		return directed && p.PreDNAT
	case forward:
		return directed && p.Forward && !p.HostOnly()
	}
	return directed && !p.HostOnly()
}

// hostEndpoints gives those of this node by the interface that each stands for; "*" is
// model.AnyInterface. Where two stand for one the first by name counts.
func (w *world) hostEndpoints(in Input) (map[string]*model.HostEndpoint, []model.Problem) {
	out := map[string]*model.HostEndpoint{}
	var problems []model.Problem
	list := hostEndpointsOf(in.Self, in.View.HostEndpoints)
	slices.SortFunc(list, func(a, b model.HostEndpoint) int { return strings.Compare(a.Object.Name, b.Object.Name) })
	for i := range list {
		e := &list[i]
		name := e.Interface
		if name == "" {
			name = interfaceWith(in.Interfaces, e)
		}
		switch before := out[name]; {
		case name == "":
			problems = append(problems, model.Problem{Object: e.Object, Field: "spec.expectedIPs", Reason: "InterfaceNotFound",
				Message: "no interface of node " + string(e.Node) + " has one of these addresses: nothing is enforced"})
		case before != nil:
			problems = append(problems, model.Problem{Object: e.Object, Field: "spec.interfaceName", Reason: "Overlap",
				Message: "interface " + name + " of node " + string(e.Node) + " is that of HostEndpoint " + before.Object.Name + ", which counts"})
		default:
			out[name] = e
		}
	}
	return out, problems
}

// hostEndpointsOf gives those of one node; "": of none.
func hostEndpointsOf(self model.NodeName, list []model.HostEndpoint) []model.HostEndpoint {
	var out []model.HostEndpoint
	for i := range list {
		if self != "" && list[i].Node == self {
			out = append(out, list[i])
		}
	}
	return out
}

func interfaceWith(links []Interface, e *model.HostEndpoint) string {
	for _, l := range links {
		for _, a := range e.Addresses {
			if slices.Contains(l.Addresses, a) {
				return l.Name
			}
		}
	}
	return ""
}

// evaluateHosts adds the node's host endpoints to a Program.
func (w *world) evaluateHosts(in Input, out *Program, used usage) []model.Problem {
	ends, problems := w.hostEndpoints(in)
	if len(ends) == 0 {
		return problems
	}
	out.Hosts = map[string]Host{}
	for name, e := range ends {
		g := w.hosts[e.Object.Name]
		if g == nil {
			g = &group{labels: map[string]string{}}
			addOwn(g.labels, e.Labels)
			w.hosts[e.Object.Name] = g
		}
		s := w.subject(g)
		if !s.made {
			b := hostBuilder{world: w, of: e, in: &in, subject: s}
			s.made, s.Host = true, Host{
				Input: b.chain(normal, ingress), Output: b.chain(normal, egress),
				ForwardIn: b.chain(forward, ingress), ForwardOut: b.chain(forward, egress),
				PreDNAT:     b.chain(preDNAT, ingress),
				UntrackedIn: b.chain(untracked, ingress), UntrackedOut: b.chain(untracked, egress),
			}
		}
		out.Hosts[name] = s.Host
		for _, id := range s.Host.chains() {
			w.follow(used, id)
		}
	}
	return problems
}

// hostBuilder makes the chains of one host endpoint.
type hostBuilder struct {
	*world
	*subject
	of *model.HostEndpoint
	in *Input
}

// chain gives the first chain of a hook: what is never cut, then the tiers, then
// the profiles. Where no policy of a hook selects the endpoint everything passes, but
// for the node's own packets: those a profile has to allow.
func (b *hostBuilder) chain(h hook, d direction) ChainID {
	counted := b.counted(h, d)
	last := b.undecided(h)
	if len(counted) == 0 && last.Verdict != Deny {
		return ""
	}
	var next ChainID
	for _, t := range slices.Backward(counted) {
		if h == preDNAT || h == untracked {
			t.Pass = true // these hooks do not drop what no rule decides
		}
		next = b.tierChain(t, prefixes[h][d], d, next, last)
	}
	if h == forward {
		return next
	}
	rules := b.failsafe(h, d)
	if next != "" {
		last = Rule{Verdict: Pass, Next: next, Origin: Origin{Tier: "failsafe ports", Index: -1}}
	}
	of := tier{Tier: model.Tier{Name: "failsafe ports"}} // no Tier's name has a space
	return b.keep(of.chainID(prefixes[h][d], d, next, last.Verdict), append(rules, last))
}

// undecided is what becomes of what no tier decides.
func (b *hostBuilder) undecided(h hook) Rule {
	r := Rule{Verdict: Allow, Origin: Origin{Tier: "profiles", Index: -1}}
	allows := func(profile string) bool {
		return profile == model.ProfileAllow || strings.HasPrefix(profile, model.ProfilePrefixOfNamespace)
	}
	switch {
	case h == preDNAT || h == untracked:
		r.Verdict, r.Origin.Tier = Continue, "tiers"
	case h == normal && !slices.ContainsFunc(b.of.Profiles, allows):
		r.Verdict = Deny
	}
	return r
}

// keep adds a chain, or gives one other rules. Those that the last Program had it shares.
func (w *world) keep(id ChainID, rules []Rule) ChainID {
	last := slices.IndexFunc(rules, func(r Rule) bool { return r.Verdict != Log && r.matchesAll() })
	chain := Chain{ID: id, Rules: rules[:last+1]}
	for _, before := range []Chain{w.chains[id], w.last.Chain(id)} {
		if reflect.DeepEqual(before, chain) {
			chain = before
		}
	}
	if !chain.Same(w.last.Chain(id)) {
		w.rewritten[id] = true
	}
	w.chains[id] = chain
	w.chained[1]++
	return id
}

// failsafe gives the rules for what no policy may cut, in the order of ports. Before
// connections are known the answers are of this kind, too.
func (b *hostBuilder) failsafe(h hook, d direction) []Rule {
	verdict := Allow
	if h != normal {
		verdict = Continue // on to the hooks behind
	}
	origin := Origin{Tier: "failsafe ports", Index: -1}
	var rules []Rule
	add := func(p model.FailsafePort, d direction, answer bool) {
		r := Rule{Protocol: p.Protocol, Verdict: verdict, Origin: origin}
		port, peer := &r.Destination, &r.Source
		if answer {
			port = &r.Source
		}
		if d == egress {
			peer = &r.Destination
		}
		if p.Port != 0 {
			port.Ports = []PortRange{{p.Port, p.Port}}
		}
		if p.Net.IsValid() {
			*peer = peer.in(b.rangeSet(mergePrefixes([]netip.Prefix{p.Net})))
			if r.Family = model.IPv6; is4(p.Net) {
				r.Family = model.IPv4
			}
		}
		rules = append(rules, r)
	}
	in, out := slices.Concat(b.in.FailsafeIn, alwaysOpen(b.in.VXLANPort)), slices.Concat(b.in.FailsafeOut, alwaysOpen(b.in.VXLANPort))
	mine, others := in, out
	if d == egress {
		mine, others = out, in
	}
	for _, p := range mine {
		add(p, d, false)
	}
	if h == untracked {
		for _, p := range others {
			add(p, d, true)
		}
	}
	for _, t := range neighborDiscovery {
		rules = append(rules, Rule{Family: model.IPv6, Protocol: 58, ICMP: ICMP{Set: true, Type: t}, Verdict: verdict, Origin: origin})
	}
	return rules
}

// neighborDiscovery are the types of ICMPv6 without which a link is dead: multicast
// listeners (RFC 2710, RFC 3810), routers and neighbors (RFC 4861).
var neighborDiscovery = []uint8{130, 131, 132, 133, 134, 135, 136, 143}

// alwaysOpen is what Muslin itself needs between nodes and routers, in both directions:
// BGP, BFD (RFC 5881, RFC 5883), VXLAN, and IP in IP.
func alwaysOpen(vxlan uint16) []model.FailsafePort {
	return []model.FailsafePort{
		{Protocol: tcp, Port: 179}, {Protocol: udp, Port: 3784}, {Protocol: udp, Port: 3785}, {Protocol: udp, Port: 4784},
		{Protocol: udp, Port: cmp.Or(vxlan, defaultVXLANPort)}, {Protocol: ipip},
	}
}

const (
	ipip             = 4
	defaultVXLANPort = 4789
)

// DefaultFailsafe gives the ports that are never cut unless a FelixConfiguration has
// others: those of Calico, of which DHCPv6 is not one.
func DefaultFailsafe() (in, out []model.FailsafePort) {
	both := []model.FailsafePort{{Protocol: tcp, Port: 179}}
	for _, p := range []uint16{2379, 2380, 5473, 6443, 6666, 6667} {
		both = append(both, model.FailsafePort{Protocol: tcp, Port: p})
	}
	in = slices.Concat([]model.FailsafePort{{Protocol: tcp, Port: 22}, {Protocol: udp, Port: 68}, {Protocol: udp, Port: 546}}, both)
	out = slices.Concat([]model.FailsafePort{{Protocol: udp, Port: 53}, {Protocol: udp, Port: 67}, {Protocol: udp, Port: 547}}, both)
	return in, out
}

// sortedHosts gives the interfaces in order.
func (p Program) sortedHosts() []string { return slices.Sorted(maps.Keys(p.Hosts)) }

// hostInput is what of an Input only host endpoints ask for.
type hostInput struct {
	interfaces              []Interface
	failsafeIn, failsafeOut []model.FailsafePort
	vxlan                   uint16
}

func hostOf(in Input) hostInput {
	return hostInput{in.Interfaces, in.FailsafeIn, in.FailsafeOut, in.VXLANPort}
}
