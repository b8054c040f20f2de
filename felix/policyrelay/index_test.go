package policyrelay

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	"google.golang.org/protobuf/proto"
)

var seed = flag.Uint64("seed", 0, "replay the worlds of that seed; 0: a new one")

// TestRelayedIsListed changes random clusters step by step. An engine that is fed by
// the relay decides after each step what one decides that has all pods; now and then
// the stream ends, and the next one begins with what the agent has.
func TestRelayedIsListed(t *testing.T) {
	start := *seed
	if start == 0 {
		start = rand.Uint64()
	}
	pods := 0
	for n := range uint64(30) {
		r := rand.New(rand.NewPCG(start, n))
		w := newTestWorld(r)
		a := newTestAgent("n1")
		x := NewIndex()
		a.connect(x)
		for step := range 40 {
			x.Update(w.view)
			got := a.decide(t, w.view)
			want, _ := policy.Compile(policy.Input{Self: "n1", View: w.view, Endpoints: w.ends(), EndpointsSynced: true})
			if got.String() != want.String() {
				t.Fatalf("-seed %d world %d step %d: relayed\n%s\nlisted\n%s", start, n, step, got, want)
			}
			pods += a.pods.Len()
			if r.IntN(10) == 0 {
				a.s.Close()
				w.change()
				x.Update(w.view)
				a.connect(x)
			}
			w.change()
		}
		a.s.Close()
		if len(x.needs)+len(x.byPair)+len(x.all)+len(x.former.unknown)+len(x.former.present)+x.former.behind > 0 {
			t.Fatalf("-seed %d world %d: nobody subscribes, and left are %v %v %v %+v", start, n, x.needs, x.byPair, x.all, x.former)
		}
	}
	if pods == 0 {
		t.Error("no pod was ever needed")
	}
}

// TestUnchangedViewCostsLittle: who begins anew with what is still so is sent next to
// nothing, and where one pod is another its bucket.
func TestUnchangedViewCostsLittle(t *testing.T) {
	v := model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"a": nil}}
	var list []*model.PolicyPod
	for i := range 1000 {
		list = append(list, &model.PolicyPod{
			Namespace: "a", Name: fmt.Sprint("web-", i), Node: model.NodeName(fmt.Sprint("n", i%50)), Labels: map[string]string{"app": "web"},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})},
		})
	}
	v.Pods = model.SortedOf(list)
	x := NewIndex()
	x.Update(v)
	a := newTestAgent("n1")
	needs := []policy.Need{{Selector: `app == "web"`}}
	first := a.stream(t, x, needs)
	if have := a.r.view.Pods.Len(); have != 980 || !a.r.view.Known[needs[0]] {
		t.Fatalf("%d pods of other nodes, want 980; known: %v", have, a.r.view.Known)
	}
	again := a.stream(t, x, needs)
	moved := *list[7]
	moved.Addresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
	v.Pods = v.Pods.With([]*model.PolicyPod{&moved}, nil)
	x.Update(v)
	one := a.stream(t, x, needs)
	t.Logf("bytes both ways of 1,000 pods: first %d, again %d, with one other pod %d", first, again, one)
	if again > 1000 || one > first/10+1000 {
		t.Errorf("bytes: first %d, again %d, with one other pod %d", first, again, one)
	}
	if p, _ := a.r.view.Pods.Get(&moved); p == nil || !slices.Equal(p.Addresses, moved.Addresses) {
		t.Errorf("the agent has %+v", p)
	}
}

// TestSlowAgentBeginsAnew: who does not read costs a bounded list, and then his stream.
func TestSlowAgentBeginsAnew(t *testing.T) {
	x := NewIndex()
	s := x.Subscribe("n1", true)
	defer s.Close()
	v := model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"a": nil}}
	x.Update(v)
	if err := s.Need([]policy.Need{{Selector: "all()"}}, 1, nil); err != nil {
		t.Fatal(err)
	}
	var list []*model.PolicyPod
	for i := range mostPending + 1 {
		list = append(list, &model.PolicyPod{Namespace: "a", Name: fmt.Sprint(i), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}})
	}
	v.Pods = model.SortedOf(list)
	x.Update(v)
	if _, err := s.Next(); !errors.Is(err, errSlow) || len(s.pending) > mostPending {
		t.Errorf("%v, %d pending; want %v", err, len(s.pending), errSlow)
	}
}

// TestUnreadableNeedIsRefused: it is not known, and the others are.
func TestUnreadableNeedIsRefused(t *testing.T) {
	x := NewIndex()
	x.Update(model.PolicyView{Synced: true, Revision: 1})
	a := newTestAgent("n1")
	good, bad := policy.Need{Port: "http"}, policy.Need{Selector: "a ="}
	a.stream(t, x, []policy.Need{good, bad})
	if v := a.r.view; !v.Known[good] || v.Known[bad] || !slices.Equal(v.Refused, []policy.Need{bad}) {
		t.Errorf("%+v", v)
	}
}

// testAgent is the agent's end without a wire.
type testAgent struct {
	r      *receiver
	s      *Subscription
	engine policy.Engine
	union  Union
	pods   model.Sorted[*model.PolicyPod]
	needs  []policy.Need
}

func newTestAgent(node model.NodeName) *testAgent { return &testAgent{r: newReceiver(node)} }

func (a *testAgent) connect(x *Index) {
	a.s = x.Subscribe("n1", true)
	a.r.begin()
	a.send()
}

func (a *testAgent) send() (size int) {
	q := a.r.need(a.needs)
	if !a.s.begun {
		q.Sums = a.r.digests()
	}
	if err := subscribe(a.s, q); err != nil {
		panic(err)
	}
	return proto.Size(q)
}

// pump has all that is due arrive, through the encoding of the wire.
func (a *testAgent) pump(t *testing.T) (size int) {
	t.Helper()
	for {
		out, err := a.s.Next()
		if err != nil {
			t.Fatal(err)
		}
		if out == nil {
			return size
		}
		b, err := proto.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		size += len(b)
		in := new(relayrpc.Response)
		if err := proto.Unmarshal(b, in); err != nil {
			t.Fatal(err)
		}
		if _, err := a.r.receive(in); err != nil {
			t.Fatal(err)
		}
	}
}

// stream is a whole one; it gives the bytes of both directions.
func (a *testAgent) stream(t *testing.T, x *Index, needs []policy.Need) int {
	t.Helper()
	a.needs, a.s = needs, x.Subscribe("n1", true)
	defer a.s.Close()
	a.r.begin()
	sent := a.send()
	return sent + a.pump(t)
}

// decide asks for what is needed until there is nothing more to ask for.
func (a *testAgent) decide(t *testing.T, v model.PolicyView) policy.Program {
	t.Helper()
	var own []*model.PolicyPod
	for p := range v.Pods.All() {
		if p.Node == a.r.node {
			own = append(own, p)
		}
	}
	for range 100 {
		a.pump(t)
		a.pods = a.union.Of(model.SortedOf(own), a.r.view.Pods)
		in := policy.Input{Self: a.r.node, View: v, Known: a.r.view.Known, Endpoints: endsOf(v, a.r.node), EndpointsSynced: true}
		in.View.Pods = a.pods
		got, _ := a.engine.Compile(in)
		if slices.Equal(got.Needs, a.needs) {
			return got
		}
		a.needs = got.Needs
		a.send()
	}
	t.Fatal("needs something else each time")
	return policy.Program{}
}

// testWorld is a cluster that changes.
type testWorld struct {
	r    *rand.Rand
	view model.PolicyView
}

func newTestWorld(r *rand.Rand) *testWorld {
	w := &testWorld{r: r, view: model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{}, ServiceAccounts: map[string]map[string]string{}}}
	for range 40 {
		w.change()
	}
	return w
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func (w *testWorld) labels() map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "role"} {
		if w.r.IntN(3) > 0 {
			out[k] = pick(w.r, "x", "y")
		}
	}
	return out
}

func (w *testWorld) change() {
	r := w.r
	switch r.IntN(10) {
	case 0:
		w.view.Revision++
		w.view.Namespaces = maps.Clone(w.view.Namespaces)
		if name := pick(r, "a", "b", "c"); r.IntN(4) == 0 {
			delete(w.view.Namespaces, name)
		} else {
			w.view.Namespaces[name] = w.labels()
		}
	case 1:
		w.view.Revision++
		w.view.ServiceAccounts = maps.Clone(w.view.ServiceAccounts)
		w.view.ServiceAccounts[pick(r, "a", "b")+"/s"] = w.labels()
	case 2, 3:
		w.view.Revision++
		w.changePolicy()
	default:
		p := &model.PolicyPod{
			Namespace: pick(r, "a", "b", "c"), Name: fmt.Sprint(r.IntN(12)), Node: pick[model.NodeName](r, "n1", "n2", "n3"), ServiceAccount: pick(r, "", "s"),
			Labels: w.labels(), Created: time.Unix(int64(r.IntN(4)), 0), HostNetwork: r.IntN(12) == 0, Finished: r.IntN(12) == 0,
		}
		for range r.IntN(3) {
			p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(20))}))
		}
		if r.IntN(3) == 0 {
			p.Leased = p.Addresses
		}
		if r.IntN(2) == 0 {
			p.Ports = []model.NamedPort{{Name: pick(r, "http", "dns"), Protocol: 6, Port: pick[uint16](r, 80, 81)}}
		}
		if r.IntN(4) == 0 {
			w.view.Pods = w.view.Pods.With(nil, []*model.PolicyPod{p})
		} else {
			w.view.Pods = w.view.Pods.With([]*model.PolicyPod{p}, nil)
		}
	}
}

func (w *testWorld) selector() model.Selector {
	s, err := selector.Parse(pick(w.r, "all()", "app == 'x'", "app == 'y' && role == 'x'", "!has(role)", "pcns.app == 'x'", "pcsa.role == 'y'",
		"projectcalico.org/namespace == 'a'", "projectcalico.org/orchestrator == 'k8s' && app == 'x' && projectcalico.org/namespace == 'b'", "app in {'x', 'z'}"))
	if err != nil {
		panic(err)
	}
	return s
}

func (w *testWorld) changePolicy() {
	r := w.r
	p := model.Policy{Object: model.Ref{Kind: model.KindPolicy, Namespace: "a", Name: fmt.Sprint(r.IntN(5))}, Tier: "default", Order: float64(r.IntN(3)), Selector: w.selector(), Ingress: true, Egress: r.IntN(2) == 0}
	for i := range 1 + r.IntN(2) {
		rule := model.PolicyRule{Action: pick(r, model.PolicyAllow, model.PolicyAllow, model.PolicyDeny), Index: i, Protocol: 6}
		if r.IntN(4) > 0 {
			rule.Source.Selector = w.selector()
		}
		if r.IntN(4) == 0 {
			rule.Source.NotSelector = w.selector()
		}
		if r.IntN(3) == 0 {
			rule.Destination.Ports = []model.PolicyPort{{Name: pick(r, "http", "dns")}}
		}
		p.IngressRules, p.EgressRules = append(p.IngressRules, rule), append(p.EgressRules, rule)
	}
	if r.IntN(4) > 0 {
		w.view.Policies = w.view.Policies.With([]*model.Policy{&p}, nil)
	} else {
		w.view.Policies = w.view.Policies.With(nil, []*model.Policy{&p})
	}
}

func (w *testWorld) ends() []model.Endpoint { return endsOf(w.view, "n1") }

// endsOf are sandboxes of most pods of a node.
func endsOf(v model.PolicyView, node model.NodeName) []model.Endpoint {
	var out []model.Endpoint
	for p := range v.Pods.All() {
		if p.Node == node && !p.HostNetwork && len(p.Addresses) > 0 && p.Name != "7" {
			out = append(out, model.Endpoint{Namespace: p.Namespace, Pod: p.Name, HostInterface: "cali" + p.Namespace + p.Name, Addresses: p.Addresses})
		}
	}
	return out
}

// TestOneChange: who needs all pods is sent the one that changed, and none of those beside it in the list.
func TestOneChange(t *testing.T) {
	view, x := benchCluster(1_000, 10), NewIndex()
	x.Update(view)
	s := x.Subscribe("n1", true)
	defer s.Close()
	if err := s.Need([]policy.Need{{Selector: "all()"}}, 1, nil); err != nil {
		t.Fatal(err)
	}
	sent := func() (put int) {
		for {
			out, err := s.Next()
			if err != nil {
				t.Fatal(err)
			}
			if out == nil {
				return put
			}
			put += len(out.Put)
		}
	}
	if n := sent(); n != 1_000 {
		t.Fatalf("at first %d pods", n)
	}
	for p := range view.Pods.All() {
		other := *p
		other.Labels = map[string]string{"app": "other"}
		view.Pods = view.Pods.With([]*model.PolicyPod{&other}, nil)
		break
	}
	x.Update(view)
	if n := sent(); n != 1 {
		t.Errorf("one pod changed, and %d are sent", n)
	}
}
