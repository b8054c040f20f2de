package policynft

import (
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// epochs is a Program with the option on.
func epochs(p policy.Program) policy.Program {
	p.EpochMask = policy.DefaultEpochMask
	return p
}

// epoch is the number that the kernel stamps; 0: none.
func (n *node) epoch(t testing.TB) uint32 {
	t.Helper()
	rules, err := n.sink.Rules(stampChain)
	if err != nil {
		t.Fatal(err)
	}
	return stamped(rules)
}

// kept opens a connection that lasts as long as the test.
func kept(t testing.TB, from *nstest.NS, protocol uint8, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := dial(from, protocol, to)
	if err != nil {
		t.Fatalf("%v: %v", to, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// open has cali0 get what a set of peers sends, TCP and UDP.
func open(peers ...netip.Addr) policy.Program {
	return program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {}, "cali2": {}},
		[]policy.Set{{ID: "a-peers", Kind: policy.Addresses, Addresses: model.SortedOf(peers)}},
		chain("i-0", policy.Rule{Source: policy.Side{In: []policy.SetID{"a-peers"}}, Verdict: policy.Allow}))
}

// TestEpochCuts: a connection that is not allowed any more ends with the first packet of its opener, and
// is named among what was denied; the others go on, those that the pod opened as well.
func TestEpochCuts(t *testing.T) {
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	n.apply(t, epochs(open(append(one.addrs[:], two.addrs[:]...)...)))
	d := n.denials(t)
	var cut, stay []net.Conn
	for _, protocol := range []uint8{tcp, udp} {
		for family := range pod.addrs {
			cut = append(cut, kept(t, one.ns, protocol, at(pod.addrs[family], 80)))
			stay = append(stay, kept(t, two.ns, protocol, at(pod.addrs[family], 80)),
				kept(t, pod.ns, protocol, at(one.addrs[family], 80)), kept(t, n.ns, protocol, at(pod.addrs[family], 80)))
		}
	}
	for range 3 {
		n.apply(t, epochs(open(two.addrs[:]...)))
		for _, c := range cut {
			if exchange(c) == nil {
				t.Errorf("%s from %s to %s goes on", c.LocalAddr().Network(), c.LocalAddr(), c.RemoteAddr())
			}
		}
		cut = nil
		for _, c := range stay {
			if err := exchange(c); err != nil {
				t.Errorf("%s from %s to %s: %v", c.LocalAddr().Network(), c.LocalAddr(), c.RemoteAddr(), err)
			}
		}
	}
	nstest.Eventually(t, "what ended is told", func() bool {
		return d.has(fmt.Sprintf("ingress default end: 6 %s to %s", one.addrs[0], at(pod.addrs[0], 80)),
			fmt.Sprintf("ingress default end: 17 %s to %s", one.addrs[1], at(pod.addrs[1], 80)))
	})
}

// TestEpochOfTheHost: so does what a pod has opened to its node, and not what others have.
func TestEpochOfTheHost(t *testing.T) {
	n := newNode(t)
	n.apply(t, epochs(open()))
	cut, stay := kept(t, n.hosts[1].ns, tcp, at(netip.MustParseAddr("10.0.1.1"), 80)), kept(t, n.hosts[3].ns, tcp, at(netip.MustParseAddr("fd00:3::1"), 80))
	another := kept(t, n.hosts[2].ns, tcp, at(netip.MustParseAddr("10.0.2.1"), 80))
	p := open()
	p.Endpoints["cali1"] = policy.Endpoint{Egress: "e-0"}
	p.Chains = p.Chains.With([]policy.Chain{chain("e-0")}, nil)
	n.apply(t, epochs(p))
	if exchange(cut) == nil {
		t.Error("a pod that may send nothing any more goes on with its node")
	}
	for _, c := range []net.Conn{stay, another} {
		if err := exchange(c); err != nil {
			t.Errorf("from %s: %v", c.LocalAddr(), err)
		}
	}
}

// TestEpochSwitch: what is allowed goes on when the option comes and goes, and a policy that was tightened while
// it was off is seen when it is on. A number does not come back.
func TestEpochSwitch(t *testing.T) {
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	both, less := open(append(one.addrs[:], two.addrs[:]...)...), open(two.addrs[:]...)
	n.apply(t, both)
	without := n.listed()
	cut, stay := kept(t, one.ns, tcp, at(pod.addrs[0], 80)), kept(t, two.ns, udp, at(pod.addrs[1], 80))
	goesOn := func(when string, list ...net.Conn) {
		t.Helper()
		for _, c := range list {
			if err := exchange(c); err != nil {
				t.Errorf("%s: from %s: %v", when, c.LocalAddr(), err)
			}
		}
	}
	n.apply(t, epochs(both))
	goesOn("on", cut, stay)
	first := n.epoch(t)
	n.apply(t, both)
	goesOn("off", cut, stay)
	if got := strings.Join(n.listed(), ""); got != strings.Join(without, "") {
		t.Errorf("without the option the table has\n%s\nwant\n%s", got, without)
	}
	n.apply(t, less)
	goesOn("tightened while off", cut, stay)
	n.apply(t, epochs(less))
	goesOn("on again", stay)
	if exchange(cut) == nil || n.epoch(t) == first {
		t.Errorf("what is denied goes on when the option is on again, in epoch %#x after %#x", n.epoch(t), first)
	}
}

// TestEpochAdopted: a process that comes new to what is as it should be writes nothing, and goes on with the
// number; what changed while there was none is a change as any other.
func TestEpochAdopted(t *testing.T) {
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	both := epochs(open(append(one.addrs[:], two.addrs[:]...)...))
	n.apply(t, both)
	cut, stay := kept(t, one.ns, tcp, at(pod.addrs[0], 80)), kept(t, two.ns, tcp, at(pod.addrs[0], 80))
	before := n.epoch(t)
	restart := func() {
		again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = again.Close() })
		n.sink = again
	}
	restart()
	n.apply(t, both)
	if got := n.sink.Stats(); got.Replaced+got.Chains+got.Elements != 0 || n.epoch(t) != before {
		t.Errorf("written: %+v, epoch %#x after %#x", got, n.epoch(t), before)
	}
	restart()
	n.apply(t, epochs(open(two.addrs[:]...)))
	if n.epoch(t) != policy.NextEpoch(policy.DefaultEpochMask, before) || exchange(cut) == nil {
		t.Errorf("what changed between two processes cuts nothing: epoch %#x after %#x", n.epoch(t), before)
	}
	if err := exchange(stay); err != nil {
		t.Error(err)
	}
	if n.sink.Stats().Replaced != 0 {
		t.Error("the table was written as a whole")
	}
}

// TestEpochBegins: which changes begin another epoch.
func TestEpochBegins(t *testing.T) {
	n := newNode(t)
	one, two := n.hosts[1].addrs, n.hosts[2].addrs
	p := open(one[0])
	p.Chains = p.Chains.With([]policy.Chain{
		chain("i-1", policy.Rule{Source: policy.Side{In: []policy.SetID{"a-bad"}}, Verdict: policy.Deny}, policy.Rule{Verdict: policy.Allow}),
		chain("i-2", policy.Rule{Source: policy.Side{In: []policy.SetID{"n-0"}}, Verdict: policy.Allow}),
	}, nil)
	set := func(id policy.SetID, of ...netip.Addr) {
		s := &policy.Set{ID: id, Kind: policy.Addresses, Addresses: model.SortedOf(of)}
		if id == "n-0" {
			s = &policy.Set{ID: id, Kind: policy.Nets, Nets: model.SortedOf([]policy.Range{{First: of[0], Last: of[1]}})}
		}
		p.Sets = p.Sets.With([]*policy.Set{s}, nil)
	}
	set("a-bad")
	set("n-0", one[0], two[0])
	delete(p.Endpoints, "cali2")
	n.apply(t, epochs(p))
	for _, step := range []struct {
		name   string
		change func()
		begins int
	}{
		{"nothing", func() {}, 0},
		{"a member that is allowed", func() { set("a-peers", one[0], two[0]) }, 0},
		{"a member that is not any more", func() { set("a-peers", one[0]) }, 1},
		{"a member that is denied", func() { set("a-bad", one[1]) }, 1},
		{"a pod", func() { p.Endpoints["cali2"] = policy.Endpoint{Ingress: "i-2"} }, 0},
		{"a pod of another group", func() { p.Endpoints["cali2"] = policy.Endpoint{Ingress: "i-1"} }, 1},
		{"other rules", func() { p.Chains = p.Chains.With([]policy.Chain{chain("i-1")}, nil) }, 1},
		{"another range", func() { set("n-0", one[0], one[0]) }, 2},
	} {
		before := n.epoch(t)
		step.change()
		n.apply(t, epochs(p))
		want := before
		for range step.begins {
			want = policy.NextEpoch(policy.DefaultEpochMask, want)
		}
		if got := n.epoch(t); got != want {
			t.Errorf("%s: epoch %#x after %#x, want %#x", step.name, got, before, want)
		}
	}
	// A number that somebody put back would let pass what was denied since.
	before := n.epoch(t)
	n.ns.Run("nft", "flush", "chain", "inet", TableName, stampChain)
	nstest.Eventually(t, "the chain is as it was", func() bool {
		n.apply(t, epochs(p))
		return n.epoch(t) != 0
	})
	if n.epoch(t) == before {
		t.Error("the epoch goes on when its chain was another meanwhile")
	}
}

// TestEpochRelated: errors of ICMP about connections pass, whatever the epoch, and other bits of the mark stay.
func TestEpochRelated(t *testing.T) {
	n := newNode(t)
	pod, one := n.hosts[0], n.hosts[1]
	n.ns.Run("nft", "add table inet others; add chain inet others pre { type filter hook prerouting priority mangle; }; add rule inet others pre ct state new ct mark set 0x539")
	pod.ns.Run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0")
	n.apply(t, epochs(open(one.addrs[:]...)))
	closedPort, err := dialOnly(one.ns, at(pod.addrs[0], 9))
	if err != nil {
		t.Fatal(err)
	}
	defer closedPort.Close()
	stay := kept(t, one.ns, udp, at(pod.addrs[0], 80))
	for i := range 300 { // round all numbers
		peers := append([]netip.Addr{n.hosts[2].addrs[i%2]}, one.addrs[:]...)
		n.apply(t, epochs(open(peers...)))
		if err := exchange(stay); err != nil {
			t.Fatalf("an allowed connection after %d changes: %v", i, err)
		}
		if i%30 != 0 { // the kernel sends a few such errors a second
			continue
		}
		if err := exchange(closedPort); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatalf("an error about a connection does not pass after %d changes: %v", i, err)
		}
	}
	want := fmt.Sprintf("mark=%d", n.epoch(t)|0x539)
	if got := n.ns.Run("cat", "/proc/net/nf_conntrack"); !strings.Contains(got, want) {
		t.Errorf("no connection has %s:\n%s", want, got)
	}
}

func dialOnly(from *nstest.NS, to netip.AddrPort) (c net.Conn, err error) {
	err = inside(from, func() (err error) {
		c, err = net.Dial("udp", to.String())
		return err
	})
	return c, err
}

// TestEpochUnderTraffic: no packet of a connection passes once a change that denies it has been written, though
// many are on their way meanwhile, and none is lost of one that stays allowed.
func TestEpochUnderTraffic(t *testing.T) {
	with := func(kind policy.SetKind, members []netip.Addr, rules func(in []policy.SetID) []policy.Rule) policy.Program {
		s := policy.Set{ID: policy.SetID(fmt.Sprint("set", kind)), Kind: kind}
		for _, a := range members {
			s.Nets = s.Nets.With([]policy.Range{{First: a, Last: a}}, nil)
		}
		if kind == policy.Addresses {
			s.Addresses, s.Nets = model.SortedOf(members), model.Sorted[policy.Range]{}
		}
		p := open()
		p.Sets, p.Chains = model.SortedOf([]*policy.Set{&s}), model.SortedOf([]policy.Chain{chain("i-0", rules([]policy.SetID{s.ID})...)})
		return p
	}
	only := func(kind policy.SetKind) func(...netip.Addr) policy.Program {
		return func(peers ...netip.Addr) policy.Program {
			return with(kind, peers, func(in []policy.SetID) []policy.Rule {
				return []policy.Rule{{Source: policy.Side{In: in}, Verdict: policy.Allow}}
			})
		}
	}
	except := func(kind policy.SetKind, all ...netip.Addr) func(...netip.Addr) policy.Program {
		return func(peers ...netip.Addr) policy.Program {
			denied := slices.DeleteFunc(slices.Clone(all), func(a netip.Addr) bool { return slices.Contains(peers, a) })
			return with(kind, denied, func(in []policy.SetID) []policy.Rule {
				return []policy.Rule{{Source: policy.Side{In: in}, Verdict: policy.Deny}, {Verdict: policy.Allow}}
			})
		}
	}
	n := newNode(t)
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	n.ns.Run("nft", fmt.Sprintf(`table inet seen {
		chain before { type filter hook prerouting priority 0; ip saddr %[1]s udp dport 80 counter; ip saddr %[2]s udp dport 80 counter; }
		chain behind { type filter hook postrouting priority 0; ip saddr %[1]s udp dport 80 counter; ip saddr %[2]s udp dport 80 counter; }
	}`, one.addrs[0], two.addrs[0]))
	seen := func(where string) []string { return counted(n.ns.Run("nft", "list", "chain", "inet", "seen", where)) }
	both := []netip.Addr{one.addrs[0], two.addrs[0]}
	n.apply(t, epochs(open(both...)))
	pause := send(t, kept(t, one.ns, udp, at(pod.addrs[0], 80)), kept(t, two.ns, udp, at(pod.addrs[0], 80)))
	for name, allow := range map[string]func(...netip.Addr) policy.Program{
		"allowed addresses": only(policy.Addresses), "allowed ranges": only(policy.Nets),
		"denied addresses": except(policy.Addresses, both...), "denied ranges": except(policy.Nets, both...),
	} {
		for range 6 {
			n.apply(t, epochs(allow(both...)))
			was := seen("behind")[0]
			nstest.Eventually(t, "packets pass", func() bool { return seen("behind")[0] != was })
			n.apply(t, epochs(allow(two.addrs[0])))
			time.Sleep(2 * time.Millisecond) // what is on its way
			was = seen("behind")[0]
			time.Sleep(5 * time.Millisecond)
			if is := seen("behind")[0]; is != was {
				t.Fatalf("%s: packets pass that are denied: %s and then %s", name, was, is)
			}
		}
	}
	pause()
	nstest.Eventually(t, "all packets of what is allowed have passed", func() bool { return seen("before")[1] == seen("behind")[1] })
}

// send sends packets on connections until the function that it gives is called.
func send(t *testing.T, conns ...net.Conn) (pause func()) {
	stop, ended := make(chan struct{}), sync.WaitGroup{}
	for _, c := range conns {
		_ = c.SetDeadline(time.Time{})
		ended.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = c.Write([]byte("x"))
				}
			}
		})
	}
	pause = sync.OnceFunc(func() { close(stop); ended.Wait() })
	t.Cleanup(pause)
	return pause
}

// TestEpochWorlds: connections of every pair live through random Programs, and each of them decides what
// their openers send as if it were the first packet.
func TestEpochWorlds(t *testing.T) {
	n := newNode(t)
	r := seeded(t)
	type flow struct {
		from, to host
		packet   policy.Packet
		conn     net.Conn
	}
	var all []flow
	n.apply(t, epochs(policy.Program{Closed: true, Endpoints: map[string]policy.Endpoint{"cali0": {}, "cali1": {}, "cali2": {}}}))
	for _, from := range n.hosts {
		for _, to := range n.hosts {
			for k := range 2 * len(ports1) {
				if from.name == to.name {
					continue
				}
				dst := at(to.addrs[k%2], ports1[k/2])
				all = append(all, flow{from, to, policy.Packet{Source: from.addrs[k%2], Destination: dst.Addr(), Protocol: udp, DestinationPort: dst.Port()}, kept(t, from.ns, udp, dst)})
			}
		}
	}
	for w := range *worlds / 2 {
		p := epochs(n.random(r))
		n.apply(t, p)
		var wg sync.WaitGroup
		for _, f := range all {
			wg.Go(func() {
				want := walk(p, f.from, f.to, f.packet)
				got := exchange(f.conn) == nil
				for tries := 0; got != want && tries < 5; tries++ {
					got = exchange(f.conn) == nil
				}
				if got != want {
					t.Errorf("world %d: %s to %s port %d: goes on: %v, want %v\n%s", w, f.from.name, f.to.name, f.packet.DestinationPort, got, want, p)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.Fatal(n.ns.Run("nft", "list", "table", "inet", TableName))
		}
	}
}
