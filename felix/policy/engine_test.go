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
	const steps = 20
	for n := range uint64(*decisions / 50) {
		r := rand.New(rand.NewPCG(start, n))
		in, e := randomWorld(r), new(Engine)
		in.View.Revision = 1
		var last Program
		for step := range steps {
			got, problems := e.Compile(in)
			want, wantProblems := Compile(in)
			if got.String() != want.String() || !reflect.DeepEqual(got.Chains, want.Chains) || !slices.Equal(problems, wantProblems) {
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
}

// nextWorld changes a few pods and endpoints; now and then all pods at once, or
// what a revision stands for.
func nextWorld(r *rand.Rand, in Input) Input {
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
	if chance(r, 10) {
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
	v.Policies = slices.Clone(v.Policies)
	n := len(v.Policies)
	switch r.IntN(6) {
	case 0:
		if n > 0 {
			v.Policies = v.Policies[:n-1]
		}
	case 1:
		v.Policies = nil
	case 2:
		v.Namespaces = maps.Clone(v.Namespaces)
		v.Namespaces["n1"] = randomLabels(r)
	case 3:
		v.NetworkSets = append(slices.Clone(v.NetworkSets), model.NetworkSet{Object: model.Ref{Kind: "NetworkSet", Name: fmt.Sprint("more", v.Revision)}, Labels: randomLabels(r), Nets: some(r, 4, randomNet)})
	default:
		if n > 0 {
			rules := randomPolicy(r)
			v.Policies[n-1].IngressRules, v.Policies[n-1].EgressRules = rules.IngressRules, rules.EgressRules
		}
		v.Policies = append(v.Policies, randomPolicy(r))
	}
	return v
}
