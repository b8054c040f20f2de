package policy

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// TestNeedsAreEnough gives an Engine the pods that it needs, and those that claim the
// addresses of these, as it learns what it needs: in the end it decides what it decides
// with all pods, and until then it allows nothing more.
func TestNeedsAreEnough(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	for n := range uint64(*decisions / 50) {
		r := rand.New(rand.NewPCG(start, n))
		in := randomWorld(r)
		in.View.Revision = 1
		want, _ := Compile(in)
		e, part := new(Engine), in
		part.Known = map[Need]bool{}
		for round := 0; ; round++ {
			part.View.Pods = needed(in, part.Known)
			got, _ := e.Compile(part)
			for range 20 {
				end, ingress := in.Endpoints[r.IntN(len(in.Endpoints))], r.IntN(2) == 0
				pkt := randomPacket(r, end.Addresses[0], ingress)
				a, b := got.Endpoints[end.HostInterface].Egress, want.Endpoints[end.HostInterface].Egress
				if ingress {
					a, b = got.Endpoints[end.HostInterface].Ingress, want.Endpoints[end.HostInterface].Ingress
				}
				if Allowed(got.Decide(a, pkt)) && !Allowed(want.Decide(b, pkt)) {
					t.Fatalf("-seed %d world %d: %+v at %s is let through as long as pods are not known\n%s\nwith all\n%s", start, n, pkt, end.HostInterface, got, want)
				}
			}
			known := map[Need]bool{}
			for _, need := range got.Needs {
				known[need] = true
			}
			if sameKnown(known, part.Known) {
				if got.String() != want.String() {
					t.Fatalf("-seed %d world %d: with %v\n%s\nwith all pods\n%s", start, n, known, got, want)
				}
				break
			}
			if round > 50 {
				t.Fatalf("-seed %d world %d: needs something else each time: %v", start, n, got.Needs)
			}
			part.Known = known
		}
	}
}

// needed are the pods of this node, those that known asks for, and those that claim the
// address of one of these.
func needed(in Input, known map[Need]bool) model.Sorted[*model.PolicyPod] {
	var out []*model.PolicyPod
	for p := range in.View.Pods.All() {
		here := slices.ContainsFunc(in.Endpoints, func(e model.Endpoint) bool { return e.Namespace == p.Namespace && e.Pod == p.Name })
		if here || p.Node == in.Self || asksFor(in.View, known, p) {
			out = append(out, p)
		}
	}
	claimed := map[string]bool{}
	for _, p := range out {
		for _, a := range p.Addresses {
			claimed[a.Unmap().String()] = true
		}
	}
	for p := range in.View.Pods.All() {
		for _, a := range p.Addresses {
			if claimed[a.Unmap().String()] && !slices.Contains(out, p) {
				out = append(out, p)
			}
		}
	}
	return model.SortedOf(out)
}

func asksFor(v model.PolicyView, known map[Need]bool, p *model.PolicyPod) bool {
	for n := range known {
		if n.Port != "" && slices.ContainsFunc(p.Ports, func(port model.NamedPort) bool { return port.Name == n.Port }) {
			return true
		}
		if s, err := selector.Parse(n.Selector); n.Port == "" && err == nil && s.Matches(Labels(p, v.Namespaces[p.Namespace], v.ServiceAccounts[p.Namespace+"/"+p.ServiceAccount])) {
			return true
		}
	}
	return false
}
