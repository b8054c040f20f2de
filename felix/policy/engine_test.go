package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestEngineIsCompile changes random worlds step by step: what an Engine that
// remembers says is what Compile says, and what did not change is shared.
func TestEngineIsCompile(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	for n := range uint64(*decisions / 50) {
		r := rand.New(rand.NewPCG(start, n))
		in, e := randomWorld(r), new(Engine)
		in.View.Revision = 1
		var last Program
		steps := 20
		if n == 0 {
			steps = 1000 // so many that what rules became is forgotten
		}
		for step := range steps {
			got, problems := e.Compile(in)
			want, wantProblems := Compile(in)
			if got.String() != want.String() || !reflect.DeepEqual(slices.Collect(got.Chains.All()), slices.Collect(want.Chains.All())) || !slices.Equal(problems, wantProblems) {
				t.Fatalf("-seed %d world %d step %d: engine\n%s%v\ncompile\n%s%v", start, n, step, got, problems, want, wantProblems)
			}
			shares(t, last, got)
			last = got
			in = nextWorld(r, in)
		}
	}
}

// shares holds that what is equal is the same in memory.
func shares(t *testing.T, a, b Program) {
	t.Helper()
	for s := range b.Sets.All() {
		if old, had := a.Sets.Get(s); had && old != s && old.Addresses.Equal(s.Addresses) && old.Ports.Equal(s.Ports) && old.Nets.Equal(s.Nets) {
			t.Errorf("%s is equal and made anew", s.ID)
		}
	}
	for c := range b.Chains.All() {
		if old, had := a.Chains.Get(c); had && !old.Same(c) && reflect.DeepEqual(old, c) {
			t.Errorf("%s is equal and made anew", c.ID)
		}
	}
}

// TestChainsAreNamedByPolicies: other rules leave every name as it is, another list of policies does not;
// those that only select have no part in it.
func TestChainsAreNamedByPolicies(t *testing.T) {
	in, e := town(1_000), new(Engine)
	before, _ := e.Compile(in)
	change := func(put ...*model.Policy) Program {
		in.View.Policies, in.View.Revision = in.View.Policies.With(put, nil), in.View.Revision+1
		p, _ := e.Compile(in)
		return p
	}
	web, _ := in.View.Policies.Get(&model.Policy{Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: "ns0", Name: "web"}})
	other := *web
	other.IngressRules = web.IngressRules[:1]
	after := change(&other)
	if !maps.Equal(before.Endpoints, after.Endpoints) || before.Chains.Len() != after.Chains.Len() {
		t.Errorf("another rule gives other chains: %d, %d before", after.Chains.Len(), before.Chains.Len())
	}
	written := 0
	for c := range after.Chains.All() {
		if !c.Same(before.Chain(c.ID)) {
			written++
		}
	}
	if written != 1 {
		t.Errorf("another rule of one policy: %d chains are others", written)
	}
	deny := *web
	deny.Object.Name, deny.IngressRules = "more", nil
	if got := change(&deny); !maps.Equal(got.Endpoints, after.Endpoints) {
		t.Error("a policy that only selects gives other chains")
	}
	also := deny
	also.IngressRules = other.IngressRules
	if got := change(&also); maps.Equal(got.Endpoints, after.Endpoints) {
		t.Error("another list of policies has the same chains")
	}
}

// TestEngineForgets: what an Engine remembers is in proportion to what there is, however
// often a policy changes.
func TestEngineForgets(t *testing.T) {
	in, e := town(1_000), new(Engine)
	all := slices.Collect(in.View.Policies.All())
	for n := range 1_000 {
		p := *all[n%len(all)]
		p.IngressRules = []model.PolicyRule{{Action: model.PolicyAllow, Source: model.PolicyPeer{Nets: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n)}), 32)}}}}
		in.View.Policies, in.View.Revision = in.View.Policies.With([]*model.Policy{&p}, nil), uint64(n+1)
		e.Compile(in)
	}
	w, most := e.world, 4*e.world.last.Chains.Len()+littleRubbish
	if len(w.chains) > most || len(w.lists) > most || len(w.sources) > most || len(w.requested) > most || len(w.byObject) != len(all) || len(w.held) != w.last.Sets.Len() {
		t.Errorf("of %d policies, with %d chains: %d chains, %d lists, %d sets, %d selectors, %d policies remembered",
			len(all), w.last.Chains.Len(), len(w.chains), len(w.lists), len(w.sources), len(w.requested), len(w.byObject))
	}
}

// nextWorld changes a few pods and endpoints; now and then all pods at once, or
// what a revision stands for.
func nextWorld(r *rand.Rand, in Input) Input {
	if chance(r, 30) { // what is here stays
		in.View = nextRevision(r, in.View)
		return in
	}
	in.Endpoints = slices.Clone(in.Endpoints)
	changes := 1 + r.IntN(3)
	if chance(r, 5) {
		changes = 100
	}
	for range changes {
		pods := slices.Collect(in.View.Pods.All())
		p := one(r, pods...)
		switch r.IntN(6) {
		case 0:
			if len(pods) > 4 {
				in.View.Pods = in.View.Pods.With(nil, []*model.PolicyPod{p})
			}
		case 1:
			p := randomPod(fmt.Sprint("new", r.IntN(200)))(r)
			in.View.Pods = in.View.Pods.With([]*model.PolicyPod{&p}, nil)
		case 2:
			e := &in.Endpoints[r.IntN(len(in.Endpoints))]
			e.Addresses = []netip.Addr{randomAddr(r)}
		case 3:
			e := &in.Endpoints[r.IntN(len(in.Endpoints))]
			e.Namespace, e.Pod = p.Namespace, p.Name
		default:
			next := randomPod(p.Name)(r)
			next.Namespace = p.Namespace
			in.View.Pods = in.View.Pods.With([]*model.PolicyPod{&next}, nil)
		}
	}
	if chance(r, 50) {
		in.View = nextRevision(r, in.View)
	}
	if chance(r, 5) { // as somebody has it who shares nothing
		in.View.Pods = model.SortedOf(slices.Collect(in.View.Pods.All()))
	}
	return in
}

// nextRevision changes one thing that is no pod.
func nextRevision(r *rand.Rand, v model.PolicyView) model.PolicyView {
	v.Revision++
	list := slices.Collect(v.Policies.All())
	var p *model.Policy
	if len(list) > 0 {
		p = one(r, list...)
	}
	put := func(p model.Policy) { v.Policies = v.Policies.With([]*model.Policy{&p}, nil) }
	other := randomPolicy(r)
	if chance(r, 50) {
		return nextOthers(r, v)
	}
	switch n := r.IntN(16); {
	case n == 0:
		v.Policies = model.Sorted[*model.Policy]{}
	case n == 3:
		v.Tiers = slices.Clone(v.Tiers)
		v.Tiers[r.IntN(len(v.Tiers))].Order = one(r, 3, 2e6, model.NoOrder())
	case n == 4:
		v.Tiers = slices.Clone(v.Tiers)
		v.Tiers[r.IntN(len(v.Tiers))] = model.Tier{Name: fmt.Sprint("t", r.IntN(4)), Order: 7, Pass: chance(r, 50)}
	case n == 5:
		v.Nodes = append(slices.Clone(v.Nodes), model.PolicyNode{Name: model.NodeName(fmt.Sprint("more", v.Revision)), Labels: randomLabels(r), Addresses: some(r, 3, randomAddr)})
	case n == 6: // as somebody has it who shares nothing
		for i, p := range list {
			again := *p
			list[i] = &again
		}
		v.Policies = model.SortedOf(list)
	case p == nil || n < 9:
		put(other)
	case n == 9:
		v.Policies = v.Policies.With(nil, []*model.Policy{p})
	case n == 10:
		next := *p
		next.Order, next.Tier = other.Order, other.Tier
		put(next)
	case n == 11:
		next := *p
		next.Selector, next.Ingress, next.Egress, next.Forward = other.Selector, other.Ingress, other.Egress, other.Forward
		put(next)
	case n > 12 && chance(r, 50): // other rules that name the same
		next := *p
		next.IngressRules, next.EgressRules = slices.Clone(p.IngressRules), slices.Clone(p.EgressRules)
		for _, rules := range [][]model.PolicyRule{next.IngressRules, next.EgressRules} {
			if len(rules) > 0 {
				rules[r.IntN(len(rules))].Action = one(r, model.PolicyAllow, model.PolicyDeny, model.PolicyLog)
			}
		}
		put(next)
	case n == 12: // two at once
		v.Policies = v.Policies.With([]*model.Policy{&other}, []*model.Policy{p})
	default:
		next := *p
		next.IngressRules, next.EgressRules = other.IngressRules, other.EgressRules
		put(next)
	}
	return v
}

// nextOthers changes one thing of those that are neither pods nor policies.
func nextOthers(r *rand.Rand, v model.PolicyView) model.PolicyView {
	switch name := one(r, "n1", "n2", "unknown"); r.IntN(10) {
	case 9:
		v.More = chance(r, 50)
		if v.Of = nil; chance(r, 70) {
			v.Of = map[string]bool{"n1": chance(r, 70), "n2": chance(r, 70)}
		}
	case 0, 1:
		v.Namespaces = maps.Clone(v.Namespaces)
		v.Namespaces[name] = randomLabels(r)
	case 2:
		v.Namespaces = maps.Clone(v.Namespaces)
		delete(v.Namespaces, name)
	case 3:
		v.ServiceAccounts = maps.Clone(v.ServiceAccounts)
		v.ServiceAccounts[name+"/s1"] = randomLabels(r)
		if chance(r, 30) {
			delete(v.ServiceAccounts, name+"/s1")
		}
	case 4:
		object := model.Ref{Kind: "NetworkSet", Namespace: one(r, "", name), Name: fmt.Sprint("more", v.Revision)}
		v.NetworkSets = append(slices.Clone(v.NetworkSets), model.NetworkSet{Object: object, Labels: randomLabels(r), Nets: some(r, 4, randomNet)})
	case 5:
		v.NetworkSets = another(r, v.NetworkSets, func(s *model.NetworkSet) { s.Nets = some(r, 4, randomNet) })
	case 6:
		v.NetworkSets = another(r, v.NetworkSets, func(s *model.NetworkSet) { s.Labels = randomLabels(r) })
	case 7:
		v.HostEndpoints = another(r, v.HostEndpoints, func(e *model.HostEndpoint) {
			e.Labels, e.Addresses = one(r, e.Labels, randomLabels(r)), one(r, e.Addresses, some(r, 2, randomAddr))
		})
	case 8:
		v.Services = maps.Clone(v.Services)
		v.Services[one(r, "n1/web", "n1/gone")] = some(r, 5, func(r *rand.Rand) model.ServiceEndpoint {
			return model.ServiceEndpoint{Addr: randomAddr(r), Protocol: one[uint8](r, 0, tcp, udp), Port: one[uint16](r, 80, 81)}
		})
	}
	return v
}

// another changes one of a list, or takes it away.
func another[T any](r *rand.Rand, list []T, change func(*T)) []T {
	list = slices.Clone(list)
	if len(list) == 0 {
		return list
	}
	i := r.IntN(len(list))
	if chance(r, 30) {
		return slices.Delete(list, i, i+1)
	}
	change(&list[i])
	return list
}
