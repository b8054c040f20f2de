package policyrelay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var contested = netip.MustParseAddr("10.0.0.1")

// owned is a cluster whose pod of that name, on node n2, has the contested address; others
// that had it are there still.
func owned(owner string, others ...string) model.PolicyView {
	v := model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"a": nil}}
	var list []*model.PolicyPod
	for _, name := range append(others, owner) {
		p := &model.PolicyPod{Namespace: "a", Name: name, Node: "n2", Labels: map[string]string{"app": "web"}, Addresses: []netip.Addr{contested}}
		if name == owner {
			p.Leased = p.Addresses
		}
		list = append(list, p)
	}
	v.Pods = model.SortedOf(list)
	return v
}

// handing is an index with what a test does to it.
type handing struct {
	t    *testing.T
	x    *Index
	late bool
}

// is checks whether an address has been handed over to a pod, and who is away.
func (h handing) is(what, pod, want string, requested ...string) {
	h.t.Helper()
	away, changed, err := h.x.handedOver(taken{node: "n2", pod: podKey{"a", pod}, addrs: []netip.Addr{contested}, late: h.late}, requested)
	if got := fmt.Sprint(changed == nil, away, err); got != want {
		h.t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func (h handing) subscribe(node model.NodeName, acknowledges bool) *Subscription {
	h.t.Helper()
	s := h.x.Subscribe(node, acknowledges)
	if err := s.Need([]policy.Need{webNeed}, 1, nil); err != nil {
		h.t.Fatal(err)
	}
	return s
}

// sent takes all that is due, and gives the number to acknowledge.
func (h handing) sent(s *Subscription) (number uint64) {
	h.t.Helper()
	for {
		out, err := s.Next()
		if err != nil {
			h.t.Fatal(err)
		}
		if out == nil {
			return number
		}
		number = max(number, out.Number)
	}
}

// TestAddressIsHandedOver once all who needed its former owner have acknowledged what
// became of it, and not before.
func TestAddressIsHandedOver(t *testing.T) {
	h := handing{t: t, x: NewIndex()}
	h.x.Update(owned("old"))
	one, two, other := h.subscribe("n1", true), h.subscribe("n3", true), h.subscribe("n4", false)
	for _, s := range []*Subscription{one, two, other} {
		s.Acknowledge(h.sent(s))
	}
	h.is("who has it", "old", "true [] <nil>")
	h.is("nobody knows of the next one", "new", "false [] <nil>")
	h.x.Update(owned("new", "old"))
	h.is("nobody was sent it", "new", "false [] <nil>")
	first, second := h.sent(one), h.sent(two)
	h.is("nobody has acknowledged it", "new", "false [] <nil>")
	one.Acknowledge(first)
	h.is("one has", "new", "false [] <nil>")
	two.Acknowledge(second - 1)
	h.is("the other one has what was before", "new", "false [] <nil>")
	two.Acknowledge(second)
	h.is("both have", "new", "true [] <nil>")
	h.x.Update(owned("new"))
	h.is("the old one is deleted", "new", "false [] <nil>")
	one.Acknowledge(h.sent(one))
	two.Acknowledge(h.sent(two))
	h.is("all know", "new", "true [] <nil>")
	h.x.Update(owned("old"))
	h.x.Update(owned("new"))
	if _, _, err := h.x.handedOver(taken{node: "n1", pod: podKey{"a", "new"}}, nil); status.Code(err) != codes.PermissionDenied {
		t.Errorf("another node asks for it: %v", err)
	}
	one.Acknowledge(h.sent(one))
	two.Acknowledge(h.sent(two))
	h.is("there and back", "new", "true [] <nil>")
	if len(one.sent)+len(two.sent)+len(other.sent)+len(h.x.former.unknown)+h.x.former.behind > 0 {
		t.Errorf("not acknowledged: %v %v %v, %+v", one.sent, two.sent, other.sent, h.x.former)
	}
}

// TestBlockThatNobodyBelieves: once it is late, it is enough that nobody else has the address.
func TestBlockThatNobodyBelieves(t *testing.T) {
	h := handing{t: t, x: NewIndex()}
	h.x.Update(owned("old"))
	s := h.subscribe("n1", true)
	s.Acknowledge(h.sent(s))
	h.late = true
	h.is("the former owner has it", "new", "false [] <nil>")
	v := owned("old")
	v.Pods = v.Pods.With(nil, slices.Collect(v.Pods.All()))
	h.x.Update(v)
	h.is("nobody knows that it is gone", "new", "false [] <nil>")
	s.Acknowledge(h.sent(s))
	h.is("all do", "new", "true [] <nil>")
	h.late = false
	h.is("a block may come", "new", "false [] <nil>")
}

// TestAgentThatLeavesIsAway until it has acknowledged all that a new stream gave it, unless it needed nothing;
// and whoever asks for it elsewhere learns that it is there.
func TestAgentThatLeavesIsAway(t *testing.T) {
	h := handing{t: t, x: NewIndex()}
	h.x.Update(owned("old"))
	s, idle := h.subscribe("n1", true), h.subscribe("n3", true)
	s.Acknowledge(h.sent(s))
	idle.Acknowledge(h.sent(idle))
	if err := idle.Need(nil, 2, nil); err != nil {
		t.Fatal(err)
	}
	idle.Close()
	s.Close()
	h.is("nobody had it before", "old", "true [] <nil>")
	h.x.Update(owned("new"))
	h.is("it is away", "new", "true [n1] <nil>")
	h.is("others are requested", "new", "true [n7] <nil>", "n7")
	s = h.subscribe("n1", true)
	h.is("it is back, and knows nothing", "new", "false [] <nil>")
	number := h.sent(s)
	h.is("it was sent all", "new", "false [] <nil>", "n1")
	s.Acknowledge(number)
	h.is("it has all", "new", "true [] <nil>")
	h.is("it is requested", "new", "true [n7] <nil>", "n1", "n7")
	for a, owners := range h.x.former.owners {
		for k := range owners {
			h.x.former.owners[a][k] = time.Now().Add(-time.Second)
		}
	}
	h.x.former.pruned = time.Time{}
	h.x.Update(owned("new"))
	if len(h.x.former.owners)+len(h.x.former.nodes) > 0 {
		t.Errorf("left after a minute: %+v", h.x.former)
	}
}

// TestHandOver has a node wait for an agent that follows another replica, that restarts, and of which nobody
// knows for a while where it is.
func TestHandOver(t *testing.T) {
	testCluster(t)
	replicas := map[string]Replica{}
	indexes := map[string]*Index{}
	stops := map[string]func(){}
	for _, name := range []string{"one", "two"} {
		indexes[name] = NewIndex()
		replicas[name], stops[name] = replica(t, indexes[name])
	}
	update := func(v model.PolicyView) {
		for _, x := range indexes {
			x.Update(v)
		}
	}
	client := func(node string, at ...string) *Client {
		text := token(t, "muslin-agent", node, Audience)
		return &Client{
			Node: model.NodeName(node), Logger: slog.Default(), Token: func() (string, error) { return text, nil },
			Replicas: func(context.Context) (map[string]Replica, error) {
				out := map[string]Replica{}
				for _, name := range at {
					out[name] = replicas[name]
				}
				return out, nil
			},
		}
	}
	update(owned("old"))
	caller := client("n2", "one", "two")
	endCaller := run(t, caller)
	defer endCaller()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	handOver := func(pod string) <-chan error {
		done := make(chan error, 1)
		go func() { done <- caller.HandOver(ctx, "a", pod, []netip.Addr{contested}) }()
		return done
	}
	// knows has a client know whose the address is, and gives its view of then.
	knows := func(c *Client, pod string) (v View) {
		t.Helper()
		eventually(t, pod+" has it", func() bool {
			v, _ = c.View()
			p, ok := v.Pods.Get(&model.PolicyPod{Namespace: "a", Name: pod})
			return ok && len(p.Addresses) == 1 && v.newest.number > 0
		})
		return v
	}
	waits := func(what string, done <-chan error) {
		t.Helper()
		select {
		case err := <-done:
			t.Fatalf("%s, and the address is handed over: %v", what, err)
		default:
		}
	}
	ends := func(what string, done <-chan error) {
		t.Helper()
		if err := <-done; err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	c := client("n1", "one")
	end := run(t, c)
	c.Need([]policy.Need{webNeed})
	c.Applied(knows(c, "old"))
	update(owned("new", "old"))
	done := handOver("new")
	v := knows(c, "new")
	waits("the kernel of n1 does not have it", done)
	c.Applied(v)
	ends("n1 has it", done)

	subscribed := func(count int) func() bool {
		return func() bool {
			x := indexes["one"]
			x.mu.Lock()
			defer x.mu.Unlock()
			return len(x.all) == count
		}
	}
	c.Need(nil)
	eventually(t, "n1 needs nothing", subscribed(0))
	update(owned("new"))
	ends("n1 needs nothing", handOver("new"))
	c.Need([]policy.Need{webNeed})
	eventually(t, "n1 subscribes again", subscribed(1))
	c.Applied(knows(c, "new"))

	update(owned("old", "new"))
	knows(c, "old")
	end()
	done = handOver("old")
	eventually(t, "one relay has lost n1", subscribed(0))
	waits("n1 is away", done)
	c = client("n1", "two")
	end = run(t, c)
	c.Need([]policy.Need{webNeed})
	v = knows(c, "old")
	waits("n1 is back at the other relay", done)
	c.Applied(v)
	ends("n1 is back, and has it", done)

	end()
	stops["two"]()
	update(owned("old"))
	short, over := context.WithTimeout(context.Background(), time.Second)
	defer over()
	if err := caller.HandOver(short, "a", "old", []netip.Addr{contested}); err == nil {
		t.Error("a relay that has just ended is not waited for")
	}
	caller.handOvers.mu.Lock()
	caller.handOvers.silent[replicas["two"]] = time.Now().Add(-2 * handOverFor)
	caller.handOvers.mu.Unlock()
	indexes["one"].mu.Lock()
	clear(indexes["one"].former.nodes)
	indexes["one"].mu.Unlock()
	ends("a relay does not answer for long", handOver("old"))
}

// TestWhatIsAcknowledged is the first answer, and what became of pods that had an address; who never does costs a
// bounded list, and then his stream.
func TestWhatIsAcknowledged(t *testing.T) {
	h := handing{t: t, x: NewIndex()}
	v := owned("old")
	h.x.Update(v)
	s := h.subscribe("n1", true)
	first := h.sent(s)
	s.Acknowledge(first)
	old, _ := v.Pods.Get(&model.PolicyPod{Namespace: "a", Name: "old"})
	other := *old
	other.Labels = map[string]string{"app": "web", "version": "2"}
	v.Pods = v.Pods.With([]*model.PolicyPod{&other, {Namespace: "a", Name: "new", Node: "n2", Labels: old.Labels, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}}}, nil)
	h.x.Update(v)
	if number := h.sent(s); first == 0 || number != 0 || len(h.x.former.unknown) > 0 {
		t.Errorf("of another label and a new pod %d is to be acknowledged, after %d", number, first)
	}
	for i := range mostPending + 1 {
		s.waits(podKey{"a", fmt.Sprint(i)})
		h.x.former.lost(podKey{"a", fmt.Sprint(i)}, []netip.Addr{contested}, nil)
		s.sends(podKey{"a", fmt.Sprint(i)})
	}
	if _, err := s.Next(); !errors.Is(err, errSlow) {
		t.Errorf("after %d that were not acknowledged: %v", len(s.sent), err)
	}
	if s.Close(); len(h.x.former.unknown)+h.x.former.behind > 0 {
		t.Errorf("left: %d %d", len(h.x.former.unknown), h.x.former.behind)
	}
}

// TestAddressOfANamesake: a pod of a name, as a StatefulSet's, that comes again with its address is another pod.
func TestAddressOfANamesake(t *testing.T) {
	h := handing{t: t, x: NewIndex()}
	again := func(age time.Duration) model.PolicyView {
		v := owned("web-0")
		p, _ := v.Pods.Get(&model.PolicyPod{Namespace: "a", Name: "web-0"})
		next := *p
		next.Created = time.Unix(1_000_000, 0).Add(-age)
		v.Pods = v.Pods.With([]*model.PolicyPod{&next}, nil)
		return v
	}
	h.x.Update(again(time.Hour))
	s := h.subscribe("n1", true)
	s.Acknowledge(h.sent(s))
	h.is("the first", "web-0", "true [] <nil>")
	h.x.Update(again(0))
	h.is("nobody knows of the second", "web-0", "false [] <nil>")
	s.Acknowledge(h.sent(s))
	h.is("all know", "web-0", "true [] <nil>")
}
