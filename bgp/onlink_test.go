package bgp_test

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// links is a node with two uplinks: a default route over eth0, the racks of
// 10.8.0.0/13 over eth1 but for 10.9.9.0/24, and a pod.
func links() (model.Host, []model.Endpoint) {
	route := func(p string, link, metric int) model.HostRoute {
		return model.HostRoute{Prefix: prefix(p), LinkIndex: link, Metric: metric}
	}
	h := model.Host{
		Links: []model.Link{{Index: 2, Name: "eth0"}, {Index: 3, Name: "eth1"}, {Index: 4, Name: "wg-x"}},
		Routes: []model.HostRoute{
			route("0.0.0.0/0", 2, 100), route("10.0.1.0/24", 2, 0), route("10.8.0.0/13", 3, 0), route("10.9.9.0/24", 2, 0),
			route("0.0.0.0/0", 3, 200),                             // another default route, which the kernel does not take
			route("10.0.2.0/24", 2, 0), route("10.0.2.0/24", 3, 0), // over both
			route("::/0", 3, 1024), route("fe80::/64", 2, 256), route("fe80::/64", 3, 256),
			route("192.0.2.0/24", 9, 0), // a link that is gone
		},
	}
	return h, []model.Endpoint{{
		HostInterface: "cali1", Addresses: []netip.Addr{addr("10.244.2.9")}, FloatingIPs: []netip.Addr{addr("192.0.2.77")},
	}}
}

func onInterfaces(s *model.Snapshot, rules ...model.FilterRule) {
	noMesh(s)
	s.Peers = []model.BGPPeer{tor(func(p *model.BGPPeer) { p.Filters = []string{"f"} })}
	s.Borrowed = []netip.Prefix{prefix("10.244.2.9/32"), prefix("10.244.2.10/32"), prefix("192.0.2.77/32")}
	s.Filters = []model.BGPFilter{{Name: "f", ImportV4: rules, ExportV4: rules}}
}

func TestInterfaceGolden(t *testing.T) {
	s := cluster()
	onInterfaces(
		&s,
		model.FilterRule{Interface: "eth1", Accept: true, Operations: []model.FilterOperation{{AddCommunity: "65000:1"}}},
		model.FilterRule{Interface: "eth0", Source: "RemotePeers"},
		model.FilterRule{Interface: "cali*", CIDR: prefix("10.244.0.0/16"), MatchOperator: "In"},
		model.FilterRule{Interface: "*.calico"},
	)
	s.Peers[0].ReachableBy = addr("10.8.0.1")
	s.Peers = append(s.Peers,
		model.BGPPeer{Name: "left", PeerIP: addr("fe80::1%eth0"), ASN: 65001, Filters: []string{"f"}},
		model.BGPPeer{Name: "right", PeerIP: addr("fe80::1%eth1"), ASN: 65001, Filters: []string{"f"}})
	got := text(bgp.DesiredOn(s, "n1", bgp.NewFIB(links())))
	file := filepath.Join("testdata", "filters-interface.txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// Which routes a rule on an interface is about.
func TestInterfaceRules(t *testing.T) {
	learned := func(p, nextHop string) bgp.Route { return bgp.Route{Prefix: prefix(p), NextHop: addr(nextHop)} }
	own := func(p string) bgp.Route {
		return bgp.Route{Prefix: prefix(p), NextHop: addr("10.0.1.1"), Local: true, LocalPref: bgp.LocalPref}
	}
	for _, tc := range []struct {
		name      string
		direction bgp.Direction
		rule      model.FilterRule
		route     bgp.Route
		hit       bool
	}{
		{"by the default route", bgp.Import, model.FilterRule{Interface: "eth0"}, learned("10.244.9.0/26", "198.51.100.1"), true},
		{"a longer route", bgp.Import, model.FilterRule{Interface: "eth0"}, learned("10.244.9.0/26", "10.9.0.1"), false},
		{"a longer one still", bgp.Import, model.FilterRule{Interface: "eth0"}, learned("10.244.9.0/26", "10.9.9.1"), true},
		{"other interface", bgp.Import, model.FilterRule{Interface: "eth1"}, learned("10.244.9.0/26", "10.9.0.1"), true},
		{"over both", bgp.Import, model.FilterRule{Interface: "eth1"}, learned("10.244.9.0/26", "10.0.2.7"), true},
		{"pattern", bgp.Import, model.FilterRule{Interface: "eth*"}, learned("10.244.9.0/26", "10.9.0.1"), true},
		{"pattern of others", bgp.Import, model.FilterRule{Interface: "*.calico"}, learned("10.244.9.0/26", "10.9.0.1"), false},
		{"IPv4 by an IPv6 next hop", bgp.Import, model.FilterRule{Interface: "eth1"}, learned("10.244.9.0/26", "fd00::1"), true},
		{"and the prefix", bgp.Import, model.FilterRule{Interface: "eth1", CIDR: prefix("10.244.9.0/26"), MatchOperator: "NotEqual"}, learned("10.244.9.0/26", "10.9.0.1"), false},
		{"passed on", bgp.Export, model.FilterRule{Interface: "eth1"}, learned("10.244.9.0/26", "10.9.0.1"), true},
		{"own block", bgp.Export, model.FilterRule{Interface: "*"}, own("10.244.1.0/26"), false},
		{"borrowed address", bgp.Export, model.FilterRule{Interface: "cali*"}, own("10.244.2.9/32"), true},
		{"floating address", bgp.Export, model.FilterRule{Interface: "cali1"}, own("192.0.2.77/32"), true},
		{"borrowed, not by a pod", bgp.Export, model.FilterRule{Interface: "cali*"}, own("10.244.2.10/32"), false},
		{"borrowed, from peers", bgp.Export, model.FilterRule{Interface: "cali*", Source: "RemotePeers"}, own("10.244.2.9/32"), false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := cluster()
			onInterfaces(&s, tc.rule)
			c, problems := bgp.DesiredOn(s, "n1", bgp.NewFIB(links()))
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			name := c.Peers[0].Import
			if tc.direction == bgp.Export {
				name = c.Peers[0].Export
			}
			p, _ := c.Policy(tc.direction, name)
			if _, from := p.Decide(tc.route); strings.HasPrefix(from, "filter f") != tc.hit {
				t.Errorf("decided by %q:\n%s", from, p)
			}
		})
	}
}

// An unnumbered peer's routes come from its link, whatever the address.
func TestInterfaceOfAnUnnumberedPeer(t *testing.T) {
	s := cluster()
	onInterfaces(&s, model.FilterRule{Interface: "eth1"})
	s.Peers = []model.BGPPeer{
		{Name: "left", PeerIP: addr("fe80::1%eth0"), ASN: 65001, Filters: []string{"f"}},
		{Name: "right", PeerIP: addr("fe80::2%eth1"), ASN: 65001, Filters: []string{"f"}},
	}
	c, problems := bgp.DesiredOn(s, "n1", bgp.NewFIB(links()))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, p := range c.Peers {
		in, _ := c.Policy(bgp.Import, p.Import)
		out, _ := c.Policy(bgp.Export, p.Export)
		r := bgp.Route{Prefix: prefix("10.244.9.0/26"), NextHop: p.Address}
		for _, policy := range []bgp.Policy{in, out} {
			if _, from := policy.Decide(r); strings.HasPrefix(from, "filter f") != (p.Address.Zone() == "eth1") {
				t.Errorf("%s from %s is decided on by %q", policy.Direction, p.Address, from)
			}
		}
	}
}

// What nothing asks for is not read, and does not matter when it changes.
func TestAsks(t *testing.T) {
	s := cluster()
	h, pods := links()
	h.Links[0].Addresses = []netip.Prefix{prefix("10.0.1.1/24")}
	fib := func() bgp.FIB { return bgp.AsksOf(s).FIB(h, pods) }
	if bgp.AsksOf(s) != (bgp.Asks{}) || !fib().Equal(bgp.FIB{}) {
		t.Error("a mesh asks for the kernel's routes")
	}
	onInterfaces(&s, model.FilterRule{Interface: "eth1"})
	if fib().Equal(bgp.NewFIB(h, pods)) {
		t.Error("nobody names an address to speak from, and addresses are read")
	}
	s.Peers[0].Annotations = map[string]string{bgp.AnnotationSource: "10.0.1.1"}
	if !fib().Equal(bgp.NewFIB(h, pods)) {
		t.Error("a filter in use, or an address to speak from, is not seen")
	}
	s.Peers[0].Filters, s.Peers[0].Annotations = nil, nil
	if before := fib(); !before.Equal(bgp.AsksOf(s).FIB(h, nil)) {
		t.Error("a pod matters though no peer uses a filter")
	} else if h.Links[0].Addresses = nil; before.Equal(fib()) {
		t.Error("the links of a router are not seen")
	}
}

// uplinks is a node with a second uplink, whose subnets are none of the node's
// address.
func uplinks() bgp.FIB {
	return bgp.NewFIB(model.Host{Links: []model.Link{
		{Index: 1, Name: "lo", Addresses: []netip.Prefix{prefix("127.0.0.1/8"), prefix("::1/128")}},
		{Index: 2, Name: "eth0", Addresses: []netip.Prefix{prefix("10.0.1.1/24"), prefix("fd00:1::1/64"), prefix("fe80::a/64")}},
		{Index: 3, Name: "eth1", Addresses: []netip.Prefix{prefix("10.8.0.1/24"), prefix("fd08::1/64"), prefix("fe80::b/64")}},
		{Index: 4, Name: "eth2", Addresses: []netip.Prefix{prefix("10.7.0.1/30")}},
	}}, nil)
}

// A router is told a next hop that it can reach: the address that its session is
// from, or one of the same link.
func TestNextHopOfTheSession(t *testing.T) {
	s := cluster()
	noMesh(&s)
	s.Nodes[0] = dual(s.Nodes[0])
	none := func(p *model.BGPPeer) { p.AnySource = true }
	at := func(name, a string, change ...func(*model.BGPPeer)) {
		s.Peers = append(s.Peers, tor(append(change, func(p *model.BGPPeer) { p.Name, p.PeerIP = name, addr(a) })...))
	}
	at("same-subnet", "10.0.1.254")
	at("same-subnet-none", "10.0.1.253", none)
	at("second", "10.8.0.254", none)
	at("second-six", "fd08::254", none)
	at("second-from-node", "10.8.0.253")
	at("one-family-link", "10.7.0.2", none)
	at("routed", "198.51.100.1", none)
	at("keep", "10.8.0.252", none, func(p *model.BGPPeer) { p.NextHopMode = "Keep" })
	at("inside", "10.8.0.251", none, func(p *model.BGPPeer) { p.ASN = 64512 })
	at("unnumbered", "fe80::1%eth1")
	c, problems := bgp.DesiredOn(s, "n1", uplinks())
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	const othersSix = "ipv6 from peers => next-hop self (fd00:1::1) continue  # next hop of the other family"
	want := map[string][]string{
		"same-subnet":      {othersSix},
		"same-subnet-none": {"ipv4 => next-hop self continue  # source address", othersSix},
		"second":           {"ipv4 => next-hop self continue  # source address", "ipv6 => next-hop self (fd08::1) continue  # next hop of the other family"},
		"second-six":       {"ipv6 => next-hop self continue  # source address", "ipv4 => next-hop self (10.8.0.1) continue  # next hop of the other family"},
		"second-from-node": {othersSix},
		"one-family-link":  {"ipv4 => next-hop self continue  # source address", othersSix},
		"routed":           {"ipv4 => next-hop self continue  # source address", othersSix},
		"keep":             {"any => next-hop keep continue  # next hop mode"},
		"unnumbered":       {"any => next-hop self continue  # unnumbered peer"},
	}
	for _, p := range c.Peers {
		policy, _ := c.Policy(bgp.Export, p.Export)
		var got []string
		for _, r := range policy.Rules {
			if r.Set.NextHop != "" {
				got = append(got, r.String())
			}
		}
		if diff := cmp.Diff(want[p.Object.Name], got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", p, diff)
		}
	}
}

// The prefixes of an interface are what a search for the longest match says of
// every address.
func TestInterfacePrefixesAreTheLongestMatch(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 7))
		h := model.Host{Links: []model.Link{{Index: 1, Name: "a"}, {Index: 2, Name: "b"}}}
		for range r.IntN(25) {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(3)), byte(r.Uint32())}), r.IntN(33)).Masked()
			if !slices.ContainsFunc(h.Routes, func(o model.HostRoute) bool { return o.Prefix == p }) {
				h.Routes = append(h.Routes, model.HostRoute{Prefix: p, LinkIndex: 1 + r.IntN(2)})
			}
		}
		s := cluster()
		onInterfaces(&s, model.FilterRule{Interface: "a"})
		c, _ := bgp.DesiredOn(s, "n1", bgp.NewFIB(h, nil))
		policy, _ := c.Policy(bgp.Import, c.Peers[0].Import)
		for range 300 {
			nh := netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(4)), byte(r.Uint32())})
			bits, over := -1, 0
			for _, o := range h.Routes {
				if o.Prefix.Contains(nh) && o.Prefix.Bits() > bits {
					bits, over = o.Prefix.Bits(), o.LinkIndex
				}
			}
			_, from := policy.Decide(bgp.Route{Prefix: prefix("192.0.2.0/24"), NextHop: nh})
			if (from == "filter f importV4[0]") != (over == 1) {
				t.Fatalf("seed %d: %s goes over link %d, decided by %q\n%v\n%s", seed, nh, over, from, h.Routes, policy)
			}
		}
	}
}

func TestWaysEqual(t *testing.T) {
	h, pods := links()
	w := bgp.NewFIB(h, pods)
	slices.Reverse(h.Routes)
	if !w.Equal(bgp.NewFIB(h, pods)) {
		t.Error("the order of routes matters")
	}
	if w.Equal(bgp.NewFIB(h, nil)) {
		t.Error("a pod that went is not seen")
	}
	h.Routes = h.Routes[1:]
	if h.Routes = h.Routes[3:]; w.Equal(bgp.NewFIB(h, pods)) {
		t.Error("routes that went are not seen")
	}
}

// TestSourceAddress: of a prefix each node takes the address that it has, also that
// of a loopback interface; what the node has not leaves its own address in force.
func TestSourceAddress(t *testing.T) {
	host := model.Host{Links: []model.Link{
		{Name: "lo", Index: 1, Addresses: []netip.Prefix{prefix("127.0.0.1/8"), prefix("10.255.0.7/32"), prefix("fd00:255::7/128")}},
		{Name: "eth0", Index: 2, Addresses: []netip.Prefix{prefix("10.0.1.1/24"), prefix("fe80::1/64")}},
	}}
	for value, want := range map[string]string{
		"10.255.0.0/24":   "10.255.0.7",
		"10.255.0.7":      "10.255.0.7",
		"10.254.0.0/24":   "10.0.1.1!",
		"fd00:255::7":     "10.0.1.1!",
		"127.0.0.1":       "10.0.1.1!",
		"eth0":            "10.0.1.1!",
		"169.254.0.1/200": "10.0.1.1!",
	} {
		s := cluster()
		s.Peers = []model.BGPPeer{{Name: "tor", PeerIP: addr("10.0.1.254"), ASN: 65001, Annotations: map[string]string{bgp.AnnotationSource: value}}}
		c, problems := bgp.DesiredOn(s, "n1", bgp.AsksOf(s).FIB(host, nil))
		p, _ := c.Peer(addr("10.0.1.254"))
		got := p.LocalAddress.String()
		if len(problems) > 0 {
			got += "!"
		}
		if got != want {
			t.Errorf("%s: from %s, want %s; %v", value, got, want, problems)
		}
	}
}
