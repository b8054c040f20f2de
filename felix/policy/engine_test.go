package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"unsafe"

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
			if !reflect.DeepEqual(got, want) || !slices.Equal(problems, wantProblems) {
				t.Fatalf("-seed %d world %d step %d: engine\n%s%v\ncompile\n%s%v", start, n, step, got, problems, want, wantProblems)
			}
			shares(t, last, got)
			last = got
			in = nextWorld(r, in)
		}
	}
}

// shares holds that equal sets have the same members in memory.
func shares(t *testing.T, a, b Program) {
	t.Helper()
	for id, s := range b.Sets {
		old, had := a.Sets[id]
		if had && len(s.Addresses) > 0 && slices.Equal(old.Addresses, s.Addresses) && unsafe.SliceData(old.Addresses) != unsafe.SliceData(s.Addresses) ||
			had && len(s.Ports) > 0 && slices.Equal(old.Ports, s.Ports) && unsafe.SliceData(old.Ports) != unsafe.SliceData(s.Ports) {
			t.Errorf("%s is equal and made anew", id)
		}
	}
}

// nextWorld changes a few pods and endpoints; now and then all pods at once, or
// what a revision stands for.
func nextWorld(r *rand.Rand, in Input) Input {
	in.View.Pods, in.Endpoints = slices.Clone(in.View.Pods), slices.Clone(in.Endpoints)
	changes := 1 + r.IntN(3)
	if chance(r, 5) {
		changes = 100
	}
	for range changes {
		i := r.IntN(len(in.View.Pods) + 1)
		switch r.IntN(6) {
		case 0:
			if i < len(in.View.Pods) && len(in.View.Pods) > 4 {
				in.View.Pods = slices.Delete(in.View.Pods, i, i+1)
			}
		case 1:
			p := randomPod(fmt.Sprint("new", r.IntN(200)))(r)
			if !slices.ContainsFunc(in.View.Pods, func(o model.PolicyPod) bool { return o.Namespace == p.Namespace && o.Name == p.Name }) {
				in.View.Pods = append(in.View.Pods, p)
			}
		case 2:
			e := &in.Endpoints[r.IntN(len(in.Endpoints))]
			e.Addresses = []netip.Addr{randomAddr(r)}
		case 3:
			e := &in.Endpoints[r.IntN(len(in.Endpoints))]
			p := in.View.Pods[r.IntN(len(in.View.Pods))]
			e.Namespace, e.Pod = p.Namespace, p.Name
		default:
			if i < len(in.View.Pods) {
				p := randomPod(in.View.Pods[i].Name)(r)
				p.Namespace = in.View.Pods[i].Namespace
				in.View.Pods[i] = p
			}
		}
	}
	if chance(r, 5) {
		in.View.Policies = append(slices.Clone(in.View.Policies), randomPolicy(r))
		in.View.Revision++
	}
	return in
}
