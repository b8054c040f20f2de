package policynft

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

var worlds = flag.Int("worlds", 40, "random Programs that packets are tried through")

const (
	tcp = 6
	udp = 17
)

var ports1 = []uint16{80, 81, 443}

// host is a pod of the node, or a host beyond it.
type host struct {
	name  string // of the link at the node
	ns    *nstest.NS
	addrs [2]netip.Addr // IPv4, IPv6
}

// node is a node with three pods and a host beyond it that all serve ports.
type node struct {
	ns    *nstest.NS
	hosts []host // pods first
	sink  *Sink
}

func newNode(t testing.TB) *node {
	t.Helper()
	n := &node{ns: nstest.New(t)}
	n.ns.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for i, name := range []string{"cali0", "cali1", "cali2", "eth0"} {
		h := host{name: name, ns: nstest.New(t), addrs: [2]netip.Addr{
			netip.AddrFrom4([4]byte{10, 0, byte(i), 2}), netip.MustParseAddr(fmt.Sprintf("fd00:%d::2", i)),
		}}
		n.ns.Veth(name, h.ns, "eth0", []string{fmt.Sprintf("10.0.%d.1/24", i), fmt.Sprintf("fd00:%d::1/64", i)},
			[]string{fmt.Sprint(h.addrs[0], "/24"), fmt.Sprint(h.addrs[1], "/64")})
		h.ns.IP(fmt.Sprintf("route add default via 10.0.%d.1", i))
		h.ns.IP(fmt.Sprintf("-6 route add default via fd00:%d::1", i))
		n.hosts = append(n.hosts, h)
		serve(t, h.ns)
	}
	serve(t, n.ns)
	var err error
	if n.sink, err = New(Options{NetNS: n.ns.Path, Logger: slog.New(slog.DiscardHandler)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.sink.Close() })
	return n
}

func (n *node) apply(t testing.TB, p policy.Program) {
	t.Helper()
	p.Complete, p.Endpoints = true, maps.Clone(p.Endpoints) // the test goes on with its own
	if err := n.sink.Apply(t.Context(), p, []string{"cali"}); err != nil {
		t.Fatalf("%v\n%s", err, p)
	}
}

// inside runs f on a thread that is in a namespace.
func inside(ns *nstest.NS, f func() error) error {
	in, err := nl.Open(ns.Path)
	if err != nil {
		return err
	}
	defer in.Close()
	return in.Do(f)
}

// serve echoes on every port, TCP and UDP.
func serve(t testing.TB, ns *nstest.NS) {
	t.Helper()
	for _, port := range ports1 {
		var l net.Listener
		var u *net.UDPConn
		if err := inside(ns, func() (err error) {
			if l, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port)); err != nil {
				return err
			}
			u, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); u.Close() })
		go echo(l)
		go func() {
			b := make([]byte, 64)
			for {
				m, from, err := u.ReadFromUDPAddrPort(b)
				if err != nil {
					return
				}
				_, _ = u.WriteToUDPAddrPort(b[:m], from)
			}
		}()
	}
}

// reply bounds the wait for an answer that comes, if it comes, in microseconds.
const reply = 300 * time.Millisecond

// dial opens a connection with an exchange on it.
func dial(from *nstest.NS, protocol uint8, to netip.AddrPort) (net.Conn, error) {
	network := "tcp"
	if protocol == udp {
		network = "udp"
	}
	var c net.Conn
	err := inside(from, func() (err error) {
		ctx, cancel := context.WithTimeout(context.Background(), reply)
		defer cancel()
		c, err = (&net.Dialer{}).DialContext(ctx, network, to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := exchange(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func exchange(c net.Conn) error {
	if err := c.SetDeadline(time.Now().Add(reply)); err != nil {
		return err
	}
	if _, err := c.Write([]byte("x")); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

func reaches(from *nstest.NS, protocol uint8, to netip.AddrPort) bool {
	c, err := dial(from, protocol, to)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// allow is a chain of its rules and a drop at its end.
func chain(id policy.ChainID, rules ...policy.Rule) policy.Chain {
	return policy.Chain{ID: id, Rules: append(rules, policy.Rule{Verdict: policy.Deny, Origin: policy.Origin{Tier: "default", Index: -1}})}
}

func program(endpoints map[string]policy.Endpoint, sets []policy.Set, chains ...policy.Chain) policy.Program {
	p := policy.Program{Complete: true, Endpoints: endpoints, Chains: model.SortedOf(chains)}
	for _, s := range sets {
		p.Sets = p.Sets.With([]*policy.Set{&s}, nil)
	}
	return p
}

// seeded gives random numbers of a seed that the log names.
func seeded(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// TestPackets tries packets of every pair through random Programs, and compares with
// what the Program says.
func TestPackets(t *testing.T) {
	n := newNode(t)
	r := seeded(t)
	for w := range *worlds {
		p := n.random(r)
		n.apply(t, p)
		var wg sync.WaitGroup
		for _, from := range n.hosts {
			for _, to := range n.hosts {
				if from.name == to.name {
					continue
				}
				for k := range 2 * 2 * len(ports1) {
					family, protocol, port := k%2, []uint8{tcp, udp}[k/2%2], ports1[k/4]
					wg.Go(func() {
						dst := netip.AddrPortFrom(to.addrs[family], port)
						want := walk(p, from, to, policy.Packet{Source: from.addrs[family], Destination: dst.Addr(), Protocol: protocol, DestinationPort: dst.Port()})
						// A slow machine, and the port of a connection of before, are no reason to fail.
						got := reaches(from.ns, protocol, dst)
						for tries := 0; got != want && tries < 5; tries++ {
							got = reaches(from.ns, protocol, dst)
						}
						if got != want {
							t.Errorf("world %d: %s to %s, protocol %d: passes: %v, want %v\n%s", w, from.name, dst, protocol, got, want, p)
						}
					})
				}
			}
		}
		wg.Wait()
		if t.Failed() {
			t.Fatal(n.ns.Run("nft", "list", "table", "inet", TableName))
		}
	}
}

// walk judges a packet as a kernel would.
func walk(p policy.Program, from, to host, k policy.Packet) bool {
	if p.Chains.Len() == 0 {
		return true
	}
	for _, at := range []struct {
		name string
		id   func(policy.Endpoint) policy.ChainID
	}{
		{from.name, func(e policy.Endpoint) policy.ChainID { return e.Egress }},
		{to.name, func(e policy.Endpoint) policy.ChainID { return e.Ingress }},
	} {
		if !strings.HasPrefix(at.name, "cali") {
			continue
		}
		e, known := p.Endpoints[at.name]
		if !known || !policy.Allowed(p.Decide(at.id(e), k)) {
			return false
		}
	}
	return true
}

// random makes a Program about the hosts of the node. Chains with ids that are not of their content: each world has
// its own.
func (n *node) random(r *rand.Rand) policy.Program {
	return rename(n.world(r), fmt.Sprint("-", r.Uint32()))
}

// world is random without that: chains of one id have other rules in each.
func (n *node) world(r *rand.Rand) policy.Program {
	var all []netip.Addr
	for _, h := range n.hosts {
		all = append(all, h.addrs[:]...)
	}
	some := func() []netip.Addr {
		var out []netip.Addr
		for _, a := range all {
			if r.IntN(2) == 0 {
				out = append(out, a)
			}
		}
		return out
	}
	sets := []policy.Set{
		{ID: "a-0", Kind: policy.Addresses, Addresses: model.SortedOf(some())}, {ID: "a-1", Kind: policy.Addresses, Addresses: model.SortedOf(some())},
		{ID: "n-0", Kind: policy.Nets}, {ID: "n-1", Kind: policy.Nets}, {ID: "p-0", Kind: policy.Ports},
	}
	for _, a := range some() {
		sets[2].Nets = sets[2].Nets.With([]policy.Range{{First: a.Prev(), Last: a.Next()}}, nil)
		sets[4].Ports = sets[4].Ports.With([]policy.AddrPort{{Addr: a, Protocol: []uint8{tcp, udp}[r.IntN(2)], Port: ports1[r.IntN(len(ports1))]}}, nil)
	}
	zero, six := netip.IPv4Unspecified(), netip.IPv6Unspecified()
	sets[3].Nets = model.SortedOf([]policy.Range{
		{First: []netip.Addr{zero, n.hosts[1].addrs[0]}[r.IntN(2)], Last: netip.MustParseAddr("255.255.255.255")},
		{First: six, Last: n.hosts[r.IntN(4)].addrs[1]},
	})
	side := func(destination bool) (s policy.Side) {
		pick := func(list []policy.SetID) []policy.SetID {
			id := sets[r.IntN(len(sets))].ID
			if r.IntN(3) > 0 || id == "p-0" && !destination {
				return list
			}
			return append(list, id)
		}
		s.In, s.NotIn = pick(nil), pick(nil)
		return s
	}
	var chains []policy.Chain
	for _, id := range []policy.ChainID{"e-2", "e-1", "i-2", "i-1"} {
		var rules []policy.Rule
		for range r.IntN(4) {
			rule := policy.Rule{Verdict: policy.Verdict(1 + r.IntN(2)), Source: side(false), Destination: side(true), Family: []model.Family{0, 0, 4, 6}[r.IntN(4)]}
			if strings.HasSuffix(string(id), "1") && r.IntN(3) == 0 {
				rule.Verdict, rule.Next = policy.Pass, policy.ChainID(string(id)[:2]+"2")
			}
			if r.IntN(2) == 0 {
				rule.Protocol = []uint8{tcp, udp}[r.IntN(2)]
				rule.Destination.Ports = [][]policy.PortRange{nil, {{First: 80, Last: 80}}, {{First: 80, Last: 81}}, {{First: 80, Last: 80}, {First: 443, Last: 65535}}}[r.IntN(4)]
				rule.Destination.NotPorts = [][]policy.PortRange{nil, nil, {{First: 81, Last: 81}}, {{First: 0, Last: 80}, {First: 443, Last: 443}}}[r.IntN(4)]
			} else if r.IntN(4) == 0 {
				rule.NotProtocol = tcp
			}
			rules = append(rules, rule)
		}
		chains = append(chains, chain(id, rules...))
	}
	endpoints := map[string]policy.Endpoint{}
	for _, name := range []string{"cali0", "cali1", "cali2"} {
		if r.IntN(12) > 0 {
			endpoints[name] = policy.Endpoint{Ingress: []policy.ChainID{"", "i-1", "i-2"}[r.IntN(3)], Egress: []policy.ChainID{"", "e-1", "e-2"}[r.IntN(3)]}
		}
	}
	return program(endpoints, sets, chains...)
}

// rename gives the chains other ids.
func rename(p policy.Program, suffix string) policy.Program {
	out := program(map[string]policy.Endpoint{}, nil)
	out.Sets = p.Sets
	id := func(c policy.ChainID) policy.ChainID {
		if c == "" {
			return ""
		}
		return c + policy.ChainID(suffix)
	}
	for name, e := range p.Endpoints {
		out.Endpoints[name] = policy.Endpoint{Ingress: id(e.Ingress), Egress: id(e.Egress)}
	}
	var chains []policy.Chain
	for c := range p.Chains.All() {
		c.ID, c.Rules = id(c.ID), slices.Clone(c.Rules)
		for i := range c.Rules {
			c.Rules[i].Next = id(c.Rules[i].Next)
		}
		chains = append(chains, c)
	}
	out.Chains = model.SortedOf(chains)
	return out
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
