package policy

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

var (
	decisions = flag.Int("decisions", 20_000, "random decisions to compare")
	seed      = flag.Uint64("seed", 0, "replay the worlds of that seed; 0: a new one")
)

// TestCompileAgreesWithEvaluate compares what a Program does to packets with what
// the objects say, in random worlds.
func TestCompileAgreesWithEvaluate(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	const packetsPerWorld = 50
	verdicts := map[bool]int{}
	for n := range uint64(*decisions / packetsPerWorld) {
		r := rand.New(rand.NewPCG(start, n))
		in := randomWorld(r)
		program, _ := Compile(in)
		checkShape(t, program)
		for range packetsPerWorld {
			e, ingress := in.Endpoints[r.IntN(len(in.Endpoints))], r.IntN(2) == 0
			pkt := randomPacket(r, e.Addresses[0], ingress)
			want, known := evaluate{in}.allows(e, ingress, pkt)
			got := program.Endpoints[e.HostInterface]
			if _, ok := program.Endpoints[e.HostInterface]; ok != known {
				t.Fatalf("-seed %d world %d: endpoint %s known %v, want %v", start, n, e.HostInterface, ok, known)
			}
			id := got.Egress
			if ingress {
				id = got.Ingress
			}
			if known && Allowed(program.Decide(id, pkt)) != want {
				t.Fatalf("-seed %d world %d: %+v at %s (ingress %v): want allowed %v\n%s\n%+v", start, n, pkt, e.HostInterface, ingress, want, program, in.View)
			}
			verdicts[want]++
		}
	}
	if verdicts[true] < *decisions/10 || verdicts[false] < *decisions/10 {
		t.Errorf("-seed %d: the worlds are dull: %v", start, verdicts)
	}
}

// checkShape holds what program.go promises.
func checkShape(t *testing.T, p Program) {
	t.Helper()
	used := map[SetID]bool{}
	for c := range p.Chains.All() {
		last := c.Rules[len(c.Rules)-1]
		if last.match() != "" || last.Verdict == Log {
			t.Errorf("a packet can fall off %s", c)
		}
		if len(c.ID) > 24 {
			t.Errorf("chain id %q", c.ID)
		}
		for _, r := range c.Rules {
			if _, ok := p.Chains.Get(Chain{ID: r.Next}); (r.Verdict == Pass) != ok {
				t.Errorf("%s: %s leads nowhere", c.ID, r)
			}
			for _, s := range []Side{r.Source, r.Destination} {
				for _, set := range slices.Concat(s.In, s.NotIn) {
					used[set] = true
				}
			}
		}
	}
	if len(used) != p.Sets.Len() {
		t.Errorf("%d sets used, %d there", len(used), p.Sets.Len())
	}
	for s := range p.Sets.All() {
		if !used[s.ID] || len(s.ID) > 24 {
			t.Errorf("set %q: used %v", s.ID, used[s.ID])
		}
		if !slices.IsSortedFunc(slices.Collect(s.Addresses.All()), strictly(netip.Addr.Compare)) || !slices.IsSortedFunc(slices.Collect(s.Ports.All()), strictly(AddrPort.Compare)) {
			t.Errorf("set not sorted: %s", s)
		}
		nets := slices.Collect(s.Nets.All())
		for i, n := range nets {
			if n.Last.Less(n.First) || i > 0 && nets[i-1].Last.Is4() == n.First.Is4() && !nets[i-1].Last.Next().Less(n.First) {
				t.Errorf("ranges not disjoint: %s", s)
			}
		}
	}
}

// strictly makes equal neighbours count as out of order.
func strictly[T any](compare func(a, b T) int) func(a, b T) int {
	return func(a, b T) int {
		if compare(b, a) == 0 {
			return -1
		}
		return compare(a, b)
	}
}

func one[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func some[T any](r *rand.Rand, most int, make func(*rand.Rand) T) []T {
	var out []T
	for range r.IntN(most + 1) {
		out = append(out, make(r))
	}
	return out
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func randomLabels(r *rand.Rand) map[string]string {
	out := map[string]string{}
	for _, k := range []string{"a", "b", "pcns.a", "projectcalico.org/namespace", "projectcalico.org/serviceaccount"} {
		if chance(r, 50) {
			out[k] = one(r, "x", "y")
		}
	}
	return out
}

func randomAddr(r *rand.Rand) netip.Addr {
	if chance(r, 30) {
		return netip.MustParseAddr(fmt.Sprintf("fd00::%d", r.IntN(8)))
	}
	return netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", r.IntN(12)))
}

func randomNet(r *rand.Rand) netip.Prefix {
	switch a := randomAddr(r); {
	case chance(r, 5):
		p, _ := a.Prefix(0)
		return p
	case a.Is6():
		p, _ := a.Prefix(124 + r.IntN(5))
		return p
	case chance(r, 10):
		return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 96+28+r.IntN(5)).Masked()
	default:
		p, _ := a.Prefix(28 + r.IntN(5))
		return p
	}
}

func randomSelector(r *rand.Rand) model.Selector {
	s, err := selector.Parse(one(r,
		"all()", "has(a)", "!has(a)", "a == 'x'", "a != 'x'", "b == 'y' && a == 'x'", "a == 'y' || has(b)",
		"pcns.a == 'x'", "has(pcns.b)", "projectcalico.org/namespace == 'n1'", "pcsa.a == 'x'",
		"!has(projectcalico.org/namespace)", "projectcalico.org/serviceaccount == 's1' && has(a)", "!all()"))
	if err != nil {
		panic(err)
	}
	return s
}

func randomPorts(protocol uint8) func(*rand.Rand) model.PolicyPort {
	return func(r *rand.Rand) model.PolicyPort {
		if chance(r, 40) || !hasPorts(protocol) {
			return model.PolicyPort{Name: one(r, "web", "dns")}
		}
		first := one[uint16](r, 0, 79, 80, 81, 65535)
		return model.PolicyPort{First: first, Last: first + min(one[uint16](r, 0, 1, 2), 65535-first)}
	}
}

func randomPeer(protocol uint8, netBase netip.Prefix) func(*rand.Rand) model.PolicyPeer {
	return func(r *rand.Rand) model.PolicyPeer {
		var p model.PolicyPeer
		if chance(r, 40) {
			p.Selector = randomSelector(r)
		}
		if chance(r, 15) {
			p.NotSelector = randomSelector(r)
		}
		if chance(r, 25) {
			p.Nets = append(some(r, 2, randomNet), netBase)
		}
		if chance(r, 20) {
			p.NotNets = some(r, 2, randomNet)
		}
		if chance(r, 10) {
			p.Service = one(r, "n1/web", "n1/gone")
		}
		if chance(r, 10) {
			p.Nodes = randomSelector(r)
		}
		if chance(r, 35) {
			p.Ports = some(r, 3, randomPorts(protocol))
		}
		if chance(r, 10) {
			p.NotPorts = some(r, 2, randomPorts(protocol))
		}
		return p
	}
}

func randomRule(r *rand.Rand) model.PolicyRule {
	rule := model.PolicyRule{
		Action:     one(r, model.PolicyAllow, model.PolicyAllow, model.PolicyDeny, model.PolicyPass, model.PolicyLog),
		Unreadable: chance(r, 3), IPVersion: one[uint8](r, 0, 0, 0, 4, 6), Protocol: one[uint8](r, 0, tcp, tcp, udp, 1, 58),
	}
	if chance(r, 10) {
		rule.NotProtocol = one[uint8](r, tcp, udp)
	}
	if v := map[uint8]uint8{1: 4, 58: 6}[rule.Protocol]; v != 0 && chance(r, 70) {
		rule.IPVersion = v
		m := &model.ICMPMatch{Type: uint8(r.IntN(3))}
		if chance(r, 50) {
			code := uint8(r.IntN(2))
			m.Code = &code
		}
		if chance(r, 30) {
			rule.NotICMP = m
		} else {
			rule.ICMP = m
		}
	}
	peer := randomPeer(rule.Protocol, randomNet(r))
	if chance(r, 60) {
		rule.Source = peer(r)
	}
	if chance(r, 60) {
		rule.Destination = peer(r)
	}
	return rule
}

func randomPolicy(r *rand.Rand) model.Policy {
	p := model.Policy{
		Object:  model.Ref{Kind: one(r, model.KindPolicy, model.KindKubernetesPolicy, model.KindClusterPolicy), Namespace: one(r, "n1", "n2"), Name: fmt.Sprint("p", r.IntN(1000))},
		Tier:    one(r, "default", "default", "default", "t1", "t2", "gone", "kube-admin", "kube-baseline"),
		Order:   one(r, 1, 2, 1000, model.NoOrder()),
		Ingress: chance(r, 70), Egress: chance(r, 60),
		IngressRules: some(r, 3, randomRule), EgressRules: some(r, 3, randomRule),
	}
	if chance(r, 90) {
		p.Selector = randomSelector(r)
	}
	p.Forward, p.Untracked, p.PreDNAT = chance(r, 30), chance(r, 8), chance(r, 8)
	return p
}

func randomPod(name string) func(r *rand.Rand) model.PolicyPod {
	return func(r *rand.Rand) model.PolicyPod {
		p := model.PolicyPod{
			Namespace: one(r, "n1", "n1", "n2", "unknown"), Name: name, Node: one[model.NodeName](r, "here", "there", "there"),
			ServiceAccount: one(r, "", "s1", "s-that-has-a-name-which-is-longer-than-any-label-value-could-be"),
			Labels:         randomLabels(r), Addresses: some(r, 2, randomAddr),
			Ports: some(r, 2, func(r *rand.Rand) model.NamedPort {
				return model.NamedPort{Name: one(r, "web", "dns"), Protocol: one[uint8](r, tcp, udp), Port: one[uint16](r, 80, 81)}
			}),
			Created: time.Unix(int64(r.IntN(3)), 0), HostNetwork: chance(r, 5), Finished: chance(r, 10),
		}
		if chance(r, 30) {
			p.Leased = p.Addresses
		}
		return p
	}
}

func randomWorld(r *rand.Rand) Input {
	in := Input{
		Self: "here", EndpointsSynced: true,
		View: model.PolicyView{
			Synced:          true,
			More:            chance(r, 20),
			Tiers:           []model.Tier{{Name: "t1", Order: 10, Pass: chance(r, 70)}, {Name: "t2", Order: one(r, 5, 2e6, model.NoOrder()), Pass: chance(r, 70)}},
			Namespaces:      map[string]map[string]string{"n1": randomLabels(r), "n2": randomLabels(r)},
			ServiceAccounts: map[string]map[string]string{"n1/s1": randomLabels(r)},
			Services: map[string][]model.ServiceEndpoint{"n1/web": some(r, 5, func(r *rand.Rand) model.ServiceEndpoint {
				return model.ServiceEndpoint{Addr: randomAddr(r), Protocol: one[uint8](r, 0, tcp, udp), Port: one[uint16](r, 80, 81)}
			})},
		},
	}
	if chance(r, 30) {
		in.View.Of = map[string]bool{"n1": true, "unknown": chance(r, 50)}
	}
	names := map[string]bool{}
	for _, p := range some(r, 8, randomPolicy) {
		if !names[p.Object.String()] {
			in.View.Policies = in.View.Policies.With([]*model.Policy{&p}, nil)
			names[p.Object.String()] = true
		}
	}
	for i := range 8 {
		p := randomPod(fmt.Sprint("pod", i))(r)
		in.View.Pods = in.View.Pods.With([]*model.PolicyPod{&p}, nil)
	}
	for i := range r.IntN(4) {
		in.View.Nodes = append(in.View.Nodes, model.PolicyNode{
			Name: model.NodeName(fmt.Sprint("node", i)), Labels: randomLabels(r), Addresses: some(r, 3, randomAddr),
		})
	}
	for i := range r.IntN(3) {
		in.View.NetworkSets = append(in.View.NetworkSets, model.NetworkSet{
			Object: model.Ref{Kind: "NetworkSet", Namespace: one(r, "", "n1", "n2", "unknown"), Name: fmt.Sprint("set", i)},
			Labels: randomLabels(r), Nets: some(r, 4, randomNet),
		})
	}
	for i, p := range slices.Collect(in.View.Pods.All())[:4] {
		in.Endpoints = append(in.Endpoints, model.Endpoint{
			Namespace: p.Namespace, Pod: one(r, p.Name, p.Name, p.Name, p.Name, "unknown"), HostInterface: fmt.Sprint("cali", i),
			Addresses: []netip.Addr{randomAddr(r)},
		})
	}
	randomHosts(r, &in)
	return in
}

// randomPacket is one that the endpoint with address own receives or sends.
func randomPacket(r *rand.Rand, own netip.Addr, received bool) Packet {
	other := randomAddr(r)
	for other.Is4() != own.Is4() {
		other = randomAddr(r)
	}
	p := Packet{Source: own, Destination: other}
	if received {
		p.Source, p.Destination = other, own
	}
	p.Protocol = one[uint8](r, tcp, tcp, udp, 1, 47)
	if p.Source.Is6() && p.Protocol == 1 {
		p.Protocol = 58
	}
	switch p.Protocol {
	case tcp, udp:
		p.SourcePort, p.DestinationPort = one[uint16](r, 80, 81, 5000, 0), one[uint16](r, 80, 81, 82, 65535, 5000)
	case 1, 58:
		p.ICMPType, p.ICMPCode = uint8(r.IntN(3)), uint8(r.IntN(2))
	}
	return p
}
