package policynft

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// received counts what the kernel tells of changes of nftables, by the kind of message.
type received struct {
	l     *nl.Listener
	count map[uint16]int
}

func (n *node) listen(t *testing.T) *received {
	t.Helper()
	ns, err := nl.Open(n.ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := nl.Listen(ns, unix.NETLINK_NETFILTER, nil, unix.NFNLGRP_NFTABLES)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return &received{l: l}
}

// since is what was heard since it was asked last: elements that came and went, rules
// that came and went.
func (h *received) since(t *testing.T) string {
	t.Helper()
	h.count = map[uint16]int{}
	if err := h.l.Drain(func(m nl.Message) { h.count[m.Type&0xff]++ }); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("elements +%d -%d, rules +%d -%d", h.count[unix.NFT_MSG_NEWSETELEM], h.count[unix.NFT_MSG_DELSETELEM], h.count[unix.NFT_MSG_NEWRULE], h.count[unix.NFT_MSG_DELRULE])
}

// nets is one pod that gets what comes from some ranges.
func nets(ranges ...policy.Range) policy.Program {
	return program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {}, "cali2": {}},
		[]policy.Set{{ID: "n-0", Kind: policy.Nets, Nets: model.SortedOf(ranges)}},
		chain("i-0", policy.Rule{Source: policy.Side{In: []policy.SetID{"n-0"}}, Verdict: policy.Allow}))
}

// TestOneNetOfMany: a range that comes or goes is its two ends, however many others
// there are.
func TestOneNetOfMany(t *testing.T) {
	n := newNode(t)
	var ranges []policy.Range
	for i := range 10000 {
		first := netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 0})
		ranges = append(ranges, policy.Range{First: first, Last: netip.AddrFrom4([4]byte{11, byte(i >> 8), byte(i), 127})})
	}
	n.apply(t, nets(ranges...))
	h := n.listen(t)
	one := n.hosts[1].addrs[0]
	added := append([]policy.Range{{First: one, Last: one}}, ranges...)
	n.apply(t, nets(added...))
	if got := h.since(t); got != "elements +2 -0, rules +0 -0" {
		t.Errorf("a net more: %s", got)
	}
	if !reaches(n.hosts[1].ns, tcp, at(n.hosts[0].addrs[0], 80)) {
		t.Error("a net that was added is not in the kernel")
	}
	n.apply(t, nets(ranges...))
	if got := h.since(t); got != "elements +0 -2, rules +0 -0" {
		t.Errorf("a net fewer: %s", got)
	}
	if reaches(n.hosts[1].ns, tcp, at(n.hosts[0].addrs[0], 80)) {
		t.Error("a net that was taken away is in the kernel")
	}
	if s := n.sink.Stats(); s.Replaced != 1 || s.Elements != 4 {
		t.Errorf("written: %+v", s)
	}
}

// TestRangesChangeInPlace changes an interval set again and again: the kernel takes
// each difference, and a process that comes new finds what is wanted.
func TestRangesChangeInPlace(t *testing.T) {
	n := newNode(t)
	r := rand.New(rand.NewPCG(1, 2))
	const steps = 60
	for step := range steps {
		var ranges []policy.Range
		for a := r.IntN(3); a < 250; a += 2 + r.IntN(3) {
			first := byte(a)
			a = min(255, a+r.IntN(4))
			ranges = append(ranges, policy.Range{First: netip.AddrFrom4([4]byte{first, 0, 0, 0}), Last: netip.AddrFrom4([4]byte{byte(a), 255, 255, 255})})
		}
		if step%10 == 9 {
			six := netip.IPv6Unspecified()
			ranges = []policy.Range{{First: netip.IPv4Unspecified(), Last: netip.MustParseAddr("255.255.255.255")}, {First: six, Last: six}}
		}
		p := nets(ranges...)
		n.apply(t, p)
		again, err := New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := again.Apply(t.Context(), p, []string{"cali"}); err != nil {
			t.Fatal(err)
		}
		if s := again.Stats(); s.Replaced+s.Chains+s.Elements != 0 {
			t.Fatalf("step %d: the kernel has something else than was written: %+v\n%s", step, s, n.ns.Run("nft", "list", "set", "inet", TableName, "n-04"))
		}
		_ = again.Close()
	}
	if s := n.sink.Stats(); s.Replaced != 1 {
		t.Errorf("the kernel refused a difference: %+v", s)
	}
}

// TestUntouchedSet: a pod in another group leaves the chains alone that look into sets
// that did not change, and a process that comes new finds them as they should be.
func TestUntouchedSet(t *testing.T) {
	n := newNode(t)
	p := closed(n.hosts[1].addrs[0])
	n.apply(t, p)
	h := n.listen(t)
	for step, e := range []policy.Endpoint{{Ingress: "i-0"}, {}} {
		p.Endpoints["cali1"] = e
		n.apply(t, p)
		if got := h.since(t); got != "elements +1 -1, rules +0 -0" {
			t.Errorf("step %d: %s", step, got)
		}
	}
}

// TestRulesChangeInPlace: other rules of a chain are written to it and no element is, and no packet meets
// anything but the rules before or after, whatever sets they need.
func TestRulesChangeInPlace(t *testing.T) {
	ports := func(verdict policy.Verdict, ports ...uint16) policy.Rule {
		r := policy.Rule{Protocol: udp, Verdict: verdict}
		for _, port := range ports {
			r.Destination.Ports = append(r.Destination.Ports, policy.PortRange{First: port, Last: port})
		}
		return r
	}
	// only is a set of the sender and one other address, of either kind.
	only := func(i uint16, from netip.Addr, kind policy.SetKind) policy.Set {
		s := policy.Set{ID: policy.SetID(fmt.Sprint("c-", i)), Kind: kind}
		other := netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})
		if kind == policy.Nets {
			s.Nets = model.SortedOf([]policy.Range{{First: from, Last: from}, {First: other, Last: other}})
		} else {
			s.Addresses = model.SortedOf([]netip.Addr{from, other})
		}
		return s
	}
	for name, rules := range map[string]func(i uint16, from netip.Addr) ([]policy.Rule, []policy.Set){
		"a port each": func(i uint16, _ netip.Addr) ([]policy.Rule, []policy.Set) {
			return []policy.Rule{ports(policy.Allow, 1000+i), ports(policy.Allow, 80)}, nil
		},
		"a set of allowed": func(i uint16, _ netip.Addr) ([]policy.Rule, []policy.Set) {
			return []policy.Rule{ports(policy.Allow, 80, 1000+i)}, nil
		},
		"a set of denied": func(i uint16, _ netip.Addr) ([]policy.Rule, []policy.Set) {
			return []policy.Rule{ports(policy.Deny, 443, 1000+i), {Verdict: policy.Allow}}, nil
		},
		"denied networks": func(i uint16, from netip.Addr) ([]policy.Rule, []policy.Set) {
			r, s := ports(policy.Deny, 443), only(i, from, policy.Nets)
			r.Source.In = []policy.SetID{s.ID}
			return []policy.Rule{r, {Verdict: policy.Allow}}, []policy.Set{s}
		},
		"denied addresses": func(i uint16, from netip.Addr) ([]policy.Rule, []policy.Set) {
			r, s := ports(policy.Deny, 443), only(i, from, policy.Addresses)
			r.Source.In = []policy.SetID{s.ID}
			return []policy.Rule{r, {Verdict: policy.Allow}}, []policy.Set{s}
		},
	} {
		t.Run(name, func(t *testing.T) { changedInPlace(t, rules) })
	}
}

// changedInPlace changes rules of a pod under packets to port 80, which all of them allow, and to 443.
func changedInPlace(t *testing.T, rules func(i uint16, from netip.Addr) ([]policy.Rule, []policy.Set)) {
	n := newNode(t)
	n.ns.Run("nft", `table inet seen {
		chain before { type filter hook prerouting priority 0; udp dport 80 counter; udp dport 443 counter; }
		chain behind { type filter hook postrouting priority 0; udp dport 80 counter; udp dport 443 counter; }
	}`)
	apply := func(i uint16) {
		rules, sets := rules(i, n.hosts[2].addrs[0])
		n.apply(t, program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {Ingress: "i-0"}, "cali2": {}}, sets, chain("i-0", rules...)))
	}
	apply(0)
	h := n.listen(t)
	sent, stop := make(chan int), make(chan struct{})
	go func() { sent <- n.hosts[2].send(n.hosts[0].addrs[0], stop) }()
	nstest.Eventually(t, "something is sent", func() bool {
		return !slices.Contains(counted(n.ns.Run("nft", "list", "chain", "inet", "seen", "before")), "0")
	})
	const changes = 100
	for i := range uint16(changes) {
		apply(i + 1)
	}
	close(stop)
	count := <-sent
	if got := h.since(t); !strings.HasPrefix(got, "elements +0 -0, ") && strings.HasSuffix(t.Name(), "each") {
		t.Errorf("%d changes: %s, want no element", changes, got)
	}
	var came, left []string
	nstest.Eventually(t, "what was sent has passed or not", func() bool {
		came, left = counted(n.ns.Run("nft", "list", "chain", "inet", "seen", "before")), counted(n.ns.Run("nft", "list", "chain", "inet", "seen", "behind"))
		return came[0] == left[0]
	})
	if left[1] != "0" {
		t.Errorf("of %d packets to each port came %s that are allowed and %s that are not, and passed %s and %s", count, came[0], came[1], left[0], left[1])
	}
}

// send sends packets of new connections to the ports 80 and 443 until stop is closed, and counts those to each.
func (h host) send(to netip.Addr, stop <-chan struct{}) (count int) {
	_ = inside(h.ns, func() error {
		for ; ; count++ {
			select {
			case <-stop:
				return nil
			default:
			}
			for _, port := range []uint16{80, 443} {
				c, err := net.Dial("udp", at(to, port).String())
				if err != nil {
					continue // no port is left for a moment
				}
				_, _ = c.Write([]byte("x"))
				_ = c.Close()
			}
		}
	})
	return count
}

// counted gives the packets that the counters of a chain have seen, in order.
func counted(listing string) []string {
	var out []string
	for _, behind := range strings.Split(listing, " packets ")[1:] {
		count, _, _ := strings.Cut(behind, " ")
		out = append(out, count)
	}
	return out
}

// TestPortsAreOneRule: however many ports and ranges a rule names, it is one rule for
// each IP version.
func TestPortsAreOneRule(t *testing.T) {
	n := newNode(t)
	var from, to, not []policy.PortRange
	for port := range uint16(12) {
		from = append(from, policy.PortRange{First: 1000 + 5000*port, Last: 5998 + 5000*port})
		to = append(to, policy.PortRange{First: 80 + 3*port, Last: 80 + 3*port})
		not = append(not, policy.PortRange{First: 81 + 3*port, Last: 82 + 3*port})
	}
	from[11].Last = 65535
	to = append(to, policy.PortRange{First: 400, Last: 65535})
	rule := policy.Rule{Protocol: tcp, Source: policy.Side{Ports: from}, Destination: policy.Side{Ports: to, NotPorts: not}, Verdict: policy.Allow}
	p := program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {}, "cali2": {}}, nil, chain("i-0", rule))
	n.apply(t, p)
	if got := strings.Count(n.ns.Run("nft", "list", "chain", "inet", TableName, "i-0"), "return"); got != 1 {
		t.Errorf("%d rules, want 1\n%s", got, n.ns.Run("nft", "list", "table", "inet", TableName))
	}
	for port, want := range map[uint16]bool{80: true, 81: false, 443: true} {
		if got := reaches(n.hosts[1].ns, tcp, at(n.hosts[0].addrs[0], port)); got != want {
			t.Errorf("port %d: %v, want %v", port, got, want)
		}
	}
	rule.Destination.Ports, rule.Destination.NotPorts = []policy.PortRange{{First: 0, Last: 65535}}, []policy.PortRange{{First: 80, Last: 80}, {First: 400, Last: 65535}}
	p.Chains, p.Endpoints["cali0"] = p.Chains.With([]policy.Chain{chain("i-1", rule)}, nil), policy.Endpoint{Ingress: "i-1"}
	n.apply(t, p)
	for port, want := range map[uint16]bool{80: false, 81: true, 443: false} {
		if got := reaches(n.hosts[1].ns, tcp, at(n.hosts[0].addrs[0], port)); got != want {
			t.Errorf("all ports but some, port %d: %v, want %v", port, got, want)
		}
	}
	if s := n.sink.Stats(); s.Replaced != 1 {
		t.Errorf("the kernel refused a difference: %+v", s)
	}
}
