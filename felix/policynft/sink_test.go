package policynft

import (
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// closed has cali0 get nothing but what a set of peers sends to TCP port 80.
func closed(peers ...netip.Addr) policy.Program {
	return program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {}, "cali2": {}},
		[]policy.Set{{ID: "a-peers", Kind: policy.Addresses, Addresses: model.SortedOf(peers)}},
		chain("i-0", policy.Rule{
			Protocol: tcp, Source: policy.Side{In: []policy.SetID{"a-peers"}},
			Destination: policy.Side{Ports: []policy.PortRange{{First: 80, Last: 80}}}, Verdict: policy.Allow,
		}))
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

// TestTightened: what is established goes on, what is new meets the new policy, and
// an endpoint that nobody knows is closed.
func TestTightened(t *testing.T) {
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	n.apply(t, closed(one.addrs[:]...))
	kept, err := dial(one.ns, tcp, at(pod.addrs[0], 80))
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if reaches(two.ns, tcp, at(pod.addrs[0], 80)) {
		t.Error("a peer that is in no set reaches the pod")
	}
	n.apply(t, closed(two.addrs[:]...))
	if err := exchange(kept); err != nil {
		t.Errorf("an established connection ended: %v", err)
	}
	if reaches(one.ns, tcp, at(pod.addrs[0], 80)) || !reaches(two.ns, tcp, at(pod.addrs[0], 80)) || !reaches(two.ns, tcp, at(pod.addrs[1], 80)) {
		t.Error("new connections do not meet the new policy")
	}
	p := closed(two.addrs[:]...)
	delete(p.Endpoints, "cali2")
	n.apply(t, p)
	if reaches(two.ns, tcp, at(pod.addrs[0], 80)) || reaches(n.hosts[3].ns, tcp, at(two.addrs[0], 80)) {
		t.Error("an interface that the Program does not have is open")
	}
	// The policies of the cluster select none of the pods that are known.
	n.apply(t, policy.Program{Unknown: true, Endpoints: map[string]policy.Endpoint{"cali1": {}, "cali2": {}}})
	if reaches(one.ns, tcp, at(pod.addrs[0], 443)) || reaches(pod.ns, tcp, at(one.addrs[0], 443)) || !reaches(one.ns, tcp, at(two.addrs[0], 443)) {
		t.Error("where no policy selects a pod, one that is not known is open, or one that is known is closed")
	}
	// There are policies, and no pod yet.
	n.apply(t, policy.Program{Closed: true})
	if reaches(one.ns, tcp, at(pod.addrs[0], 443)) {
		t.Error("a pod that comes is open before it is known")
	}
	n.apply(t, policy.Program{Complete: true})
	if !reaches(one.ns, tcp, at(pod.addrs[0], 443)) {
		t.Error("without any policy a pod is closed")
	}
}

// TestForget: the connections of an address that a pod gives back end, whoever opened
// them and by whichever address, and those of others go on.
func TestForget(t *testing.T) {
	listed := func(others ...netip.Addr) func(*Sink, []netip.Addr) (int, error) {
		return func(s *Sink, pod []netip.Addr) (int, error) { return s.Forget(append(pod, others...)) }
	}
	t.Run("of a pod", func(t *testing.T) { forgets(t, listed()) })
	t.Run("of pods", func(t *testing.T) { forgets(t, listed(netip.MustParseAddr("192.0.2.1"))) })
	t.Run("of blocks", func(t *testing.T) {
		forgets(t, func(s *Sink, pod []netip.Addr) (int, error) {
			return s.ForgetAll(func(a netip.Addr) bool {
				return slices.ContainsFunc(pod, func(b netip.Addr) bool { return netip.PrefixFrom(b, b.BitLen()/4*3).Masked().Contains(a) })
			})
		})
	})
}

// forgets tries it with the addresses of a pod, or more than those.
func forgets(t *testing.T, forget func(*Sink, []netip.Addr) (int, error)) {
	t.Helper()
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	n.ns.Run("nft", "add table inet services; add chain inet services pre { type nat hook prerouting priority dstnat; }; add rule inet services pre ip daddr 10.96.0.1 dnat ip to "+pod.addrs[0].String())
	n.apply(t, closed(one.addrs[:]...))
	opened := func(from *nstest.NS, protocol uint8, to netip.AddrPort) net.Conn {
		t.Helper()
		c, err := dial(from, protocol, to)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	ended := map[string]net.Conn{
		"to the pod, IPv4":      opened(one.ns, tcp, at(pod.addrs[0], 80)),
		"to the pod, IPv6":      opened(one.ns, tcp, at(pod.addrs[1], 80)),
		"to the pod, a service": opened(one.ns, tcp, at(netip.MustParseAddr("10.96.0.1"), 80)),
	}
	kept := opened(one.ns, tcp, at(two.addrs[0], 80))
	flows, err := n.sink.Flows(map[netip.Addr]bool{pod.addrs[0]: true, pod.addrs[1]: true}, 1000)
	reported := map[string]int{}
	for _, f := range flows {
		reported[fmt.Sprint(f.Protocol, " ", f.Source.Addr(), " to ", f.Destination)]++
	}
	want := map[string]int{
		fmt.Sprint(6, " ", one.addrs[0], " to ", at(pod.addrs[0], 80)): 2, // one by the service
		fmt.Sprint(6, " ", one.addrs[1], " to ", at(pod.addrs[1], 80)): 1,
	}
	if err != nil || !maps.Equal(reported, want) {
		t.Errorf("connections of the pod: %v, want %v: %v", reported, want, err)
	}
	opened(pod.ns, udp, at(two.addrs[0], 80))
	opened(pod.ns, udp, at(two.addrs[1], 80))
	shut := program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0", Egress: "e-0"}, "cali1": {}, "cali2": {}}, nil, chain("i-0"), chain("e-0"))
	n.apply(t, shut)
	for name, c := range ended {
		if err := exchange(c); err != nil {
			t.Errorf("%s: an established connection ended by itself: %v", name, err)
		}
	}
	if count, err := forget(n.sink, pod.addrs[:]); err != nil || count != 5 {
		t.Errorf("forgot %d connections, want 5: %v", count, err)
	}
	for name, c := range ended {
		if err := exchange(c); err == nil {
			t.Errorf("%s: a connection goes on that the address had under another owner", name)
		}
	}
	if err := exchange(kept); err != nil {
		t.Errorf("a connection of others ended: %v", err)
	}
	if count, err := forget(n.sink, pod.addrs[:]); err != nil || count != 0 {
		t.Errorf("forgot %d connections of nobody: %v", count, err)
	}
}

// TestTheHost: what the host sends to its pods is not judged, nor are answers; what a
// pod sends to its host is.
func TestTheHost(t *testing.T) {
	n := newNode(t)
	n.apply(t, program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0", Egress: "e-0"}, "cali1": {}}, nil, chain("i-0"), chain("e-0")))
	for family, host := range []string{"10.0.0.1", "fd00:0::1"} {
		if !reaches(n.ns, tcp, at(n.hosts[0].addrs[family], 80)) {
			t.Errorf("the host does not reach its pod at %s", n.hosts[0].addrs[family])
		}
		if reaches(n.hosts[0].ns, tcp, at(netip.MustParseAddr(host), 80)) {
			t.Errorf("a pod that may send nothing reaches its host at %s", host)
		}
	}
	if !reaches(n.hosts[1].ns, tcp, at(netip.MustParseAddr("10.0.1.1"), 80)) {
		t.Error("a pod without policy does not reach its host")
	}
	n.hosts[0].ns.Run("ip", "neigh", "flush", "dev", "eth0", "nud", "permanent")
	if !reaches(n.ns, tcp, at(n.hosts[0].addrs[1], 80)) {
		t.Error("neighbour discovery of a closed pod does not pass")
	}
}

// TestInProportion: each change is written as such; a process that comes new to what
// is as it should be writes nothing; others' changes of the table are undone, and
// others' tables stay.
func TestInProportion(t *testing.T) {
	n := newNode(t)
	n.ns.Run("nft", "add", "table", "inet", "others")
	peers := []netip.Addr{n.hosts[1].addrs[0]}
	wrote := func(when string, s *Sink, want ...int) {
		t.Helper()
		got := s.Stats()
		if have := fmt.Sprint(got.Replaced, got.Chains, got.Elements); have != strings.Trim(fmt.Sprint(want), "[]") {
			t.Errorf("%s: tables, chains, elements written: %s, want %v", when, have, want)
		}
	}
	n.apply(t, closed(peers...))
	wrote("the first time", n.sink, 1, 0, 0)
	n.apply(t, closed(append(peers, n.hosts[2].addrs[0])...))
	wrote("a member more", n.sink, 1, 0, 1)
	p := closed(peers...)
	p.Endpoints["cali1"] = policy.Endpoint{Ingress: "i-0"}
	n.apply(t, p)
	wrote("a member fewer, an endpoint in another group", n.sink, 1, 0, 4)
	p.Chains = p.Chains.With([]policy.Chain{chain("i-1")}, nil)
	p.Endpoints["cali2"] = policy.Endpoint{Egress: "i-1"}
	n.apply(t, p)
	wrote("a group more", n.sink, 1, 1, 6)
	p.Sets = p.Sets.With([]*policy.Set{{ID: "n-0", Kind: policy.Nets, Nets: model.SortedOf([]policy.Range{{First: netip.IPv4Unspecified(), Last: netip.MustParseAddr("255.255.255.255")}})}}, nil)
	p.Chains = p.Chains.With([]policy.Chain{chain("i-2", policy.Rule{Source: policy.Side{In: []policy.SetID{"n-0"}}, Verdict: policy.Allow})}, []policy.Chain{{ID: "i-1"}})
	p.Endpoints["cali2"] = policy.Endpoint{Egress: "i-2"}
	n.apply(t, p)
	wrote("another group instead, with a set", n.sink, 1, 3, 9)
	p.Sets = p.Sets.With([]*policy.Set{{ID: "p-0", Kind: policy.Ports, Ports: model.SortedOf([]policy.AddrPort{{Addr: peers[0], Protocol: tcp, Port: 80}})}}, nil)
	n.apply(t, p)
	wrote("a set more", n.sink, 1, 3, 10)

	again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Apply(t.Context(), policy.Program{}, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	if err := again.Apply(t.Context(), p, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	wrote("a process that comes new", again, 0, 0, 0)

	// in which order chains and sets are listed depends on when they were made
	listed := func() string {
		return strings.Join(slices.Sorted(strings.Lines(n.ns.Run("nft", "list", "table", "inet", TableName))), "")
	}
	want := listed()
	for _, spoil := range []string{
		"delete element inet muslin-policy a-peers4 { 10.0.1.2 }",
		"add element inet muslin-policy a-peers4 { 10.0.9.9 }",
		"delete element inet muslin-policy a-peers4 { 10.0.1.2 }; add element inet muslin-policy a-peers4 { 10.0.9.9 }",
		"add element inet muslin-policy a-peers4 { * }",
		"delete element inet muslin-policy a-peers4 { 10.0.1.2 }; add element inet muslin-policy a-peers4 { * }",
		"add element inet muslin-policy a-peers6 { ::ffff:10.0.1.2 }",
		"delete element inet muslin-policy p-04 { 10.0.1.2 . tcp . 80 }; add element inet muslin-policy p-04 { 10.0.1.2 . udp . 80 }",
		"delete element inet muslin-policy from { cali0 }",
		"flush chain inet muslin-policy i-0",
		"insert rule inet muslin-policy forward accept",
		"flush set inet muslin-policy n-04",
		"add chain inet muslin-policy more",
		"delete table inet muslin-policy",
	} {
		n.ns.Run("nft", spoil)
		nstest.Eventually(t, "undone: "+spoil, func() bool {
			n.apply(t, p)
			return listed() == want
		})
	}
	n.ns.Run("nft", "list", "table", "inet", "others")
	if gone, err := Remove(n.ns.Path); !gone || err != nil {
		t.Errorf("removed: %v, %v", gone, err)
	}
}

// TestManyMembers reads back ten thousand members of each kind.
func TestManyMembers(t *testing.T) {
	n := newNode(t)
	var addrs []netip.Addr
	var nets []policy.Range
	var ports []policy.AddrPort
	for _, a := range []netip.Addr{netip.MustParseAddr("10.8.0.0"), netip.MustParseAddr("fd08::")} {
		for range 10000 {
			addrs = append(addrs, a)
			nets = append(nets, policy.Range{First: a, Last: a})
			ports = append(ports, policy.AddrPort{Addr: a, Protocol: tcp, Port: 80})
			a = a.Next().Next()
		}
	}
	sets := []policy.Set{
		{ID: "a-0", Kind: policy.Addresses, Addresses: model.SortedOf(addrs)}, {ID: "n-0", Kind: policy.Nets, Nets: model.SortedOf(nets)},
		{ID: "p-0", Kind: policy.Ports, Ports: model.SortedOf(ports)},
	}
	var rules []policy.Rule
	for _, s := range sets {
		rules = append(rules, policy.Rule{Source: policy.Side{In: []policy.SetID{s.ID}}, Verdict: policy.Allow})
	}
	p := program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}}, sets, chain("i-0", rules...))
	n.apply(t, p)
	for _, name := range []string{"a-04", "a-06", "n-04", "n-06", "p-04", "p-06"} {
		if got := strings.Count(n.ns.Run("nft", "list", "set", "inet", TableName, name), ",") + 1; got != 10000 {
			t.Errorf("set %s has %d members, want 10000", name, got)
		}
	}
	again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := again.Apply(t.Context(), p, []string{"cali"}); err != nil {
		t.Fatal(err)
	}
	if s := again.Stats(); s.Replaced+s.Chains+s.Elements != 0 {
		t.Errorf("not all was read back as written: %+v", s)
	}
}

// TestThere: a new process asks whether one before has left the table.
func TestThere(t *testing.T) {
	n := newNode(t)
	for _, step := range []struct {
		what string
		p    policy.Program
		want bool
	}{{"policies", closed(n.hosts[1].addrs[0]), true}, {"none", program(nil, nil), false}, {"policies again", closed(), true}} {
		n.apply(t, step.p)
		another, err := New(Options{NetNS: n.ns.Path})
		if err != nil {
			t.Fatal(err)
		}
		if got := another.There(); got != step.want {
			t.Errorf("%s: the table is there: %t", step.what, got)
		}
		if err := another.Close(); err != nil {
			t.Error(err)
		}
	}
}
