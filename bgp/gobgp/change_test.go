package gobgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// Policies change under a session; only a change of identity resets one, and
// only that one.
func TestChangesWithoutReset(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	bird := b.StartBIRD("protocol static { ipv4; route 10.244.50.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	other := c.StartBIRD(bgptest.BIRDPeer("node", c.V4, 65002, a.V4, 64512, ""))
	snap := withPeer(withPeer(clusterOf(a), b.V4, 65001), c.V4, 65002)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	s.established(b.V4)
	s.established(c.V4)
	noFlap := func(what string) {
		t.Helper()
		for _, p := range s.state().Peers {
			if p.Flaps != 0 || !p.Up() {
				t.Fatalf("%s: %s", what, s.peers())
			}
		}
	}
	for i := range 60 {
		community := fmt.Sprintf("65000:%d", i)
		want := fmt.Sprintf("BGP.community: (65000,%d)\n", i)
		switch i % 3 {
		case 0:
			snap.Peers[0].Filters = nil
			snap.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{{CIDR: pfx("10.244.0.0/16"), Communities: []string{community}}}
		case 1:
			filter(true, model.FilterRule{Accept: true, Operations: []model.FilterOperation{{AddCommunity: community}}})(&snap, &snap.Peers[0])
		case 2:
			filter(true, model.FilterRule{CIDR: pfx("10.244.1.0/26"), MatchOperator: "Equal"})(&snap, &snap.Peers[0])
			want = ""
		}
		s.apply(desired(t, snap))
		if want == "" {
			bgptest.Eventually(t, "withdrawn by policy", bgptest.Lacks(bird.Routes, "10.244.1.0/26"))
		} else {
			bgptest.Eventually(t, "changed by policy", bgptest.Contains(bird.Routes, "10.244.1.0/26", want))
		}
	}
	noFlap("export policies")
	filter(false, model.FilterRule{CIDR: pfx("10.244.50.0/26"), MatchOperator: "Equal"})(&snap, &snap.Peers[0])
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.50.0/26"))
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "refused by a new import policy", bgptest.Lacks(s.learned, "10.244.50.0/26"))
	snap.Peers[0].Filters = nil
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "accepted again", bgptest.Contains(s.learned, "10.244.50.0/26"))
	noFlap("import policies")

	snap.Blocks = append(snap.Blocks[:0:0], snap.Blocks[2])
	snap.Blocks = append(snap.Blocks, model.Block{CIDR: pfx("10.244.3.0/26"), Node: "a", State: model.BlockConfirmed})
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "new block", bgptest.Contains(bird.Routes, "10.244.3.0/26"))
	bgptest.Eventually(t, "old block", bgptest.Lacks(bird.Routes, "10.244.1.0/26"))
	snap.Peers[1].Annotations = map[string]string{"muslin.io/hold-time": "30s", "muslin.io/prefix-limit": "100"}
	s.apply(desired(t, snap))
	noFlap("blocks and settings")

	snap.Peers[0].LocalASN = 65300
	s.apply(desired(t, snap))
	bird.Reconfigure("protocol static { ipv4; route 10.244.50.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 65300, ""))
	bgptest.Eventually(t, "the new AS", bgptest.Contains(bird.Routes, "BGP.as_path: 65300\n"))
	for _, p := range s.state().Peers {
		if p.Address.String() == c.V4 && (p.Flaps != 0 || !p.Up()) {
			t.Errorf("the other peer was touched: %s", s.peers())
		}
	}

	snap.Peers = snap.Peers[1:]
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "the removed peer's routes", bgptest.Lacks(s.learned, "10.244.50.0/26"))
	bgptest.Eventually(t, "BIRD is told", bgptest.Contains(bird.Log, "Peer de-configured"))

	snap.BGP[0].ListenPort = 1179 // another server, the same peers
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "blocks after a restart of the server", bgptest.Contains(other.Routes, "10.244.3.0/26"))
}

func TestPasswordRotates(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	proto := func(pw string) string {
		return bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, `password "`+pw+`";`)
	}
	bird := b.StartBIRD(proto("first"))
	snap := withPeer(clusterOf(a), b.V4, 65001)
	snap.Peers[0].Password = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("first")}
	s := startSpeaker(t, a, "confined")
	s.apply(desired(t, snap))
	s.established(b.V4)
	if got := s.host.Run("grep CapEff /proc/" + s.pid() + "/status"); !strings.Contains(got, "0000000000001400") {
		t.Fatalf("not confined: %s", got)
	}
	snap.Peers[0].Password = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("second")}
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "down with two passwords", bgptest.Lacks(s.peers, "Established"))
	bird.Reconfigure(proto("second"))
	s.established(b.V4)
	bgptest.Eventually(t, "block", bgptest.Contains(bird.Routes, "10.244.1.0/26"))

	// None any more: the listener has to have forgotten the key, or it does
	// not hear connections from that address.
	snap.Peers[0].Password = nil
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "down with one password", bgptest.Lacks(s.peers, "Established"))
	bird.Reconfigure(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	s.established(b.V4)
	connect := "timeout 3 bash -c \"exec 3<>/dev/tcp/" + a.V4 + "/179\" && echo heard || echo deaf"
	bgptest.Eventually(t, "the listener", bgptest.Contains(func() string { return b.Run(connect) }, "heard"))
	if bad := bgptest.Lacks(s.log.String, "first", "second")(); bad != "" {
		t.Errorf("a password is in the log: %s", bad)
	}
}

// Two routers announce the same prefix: both are next hops, until one leaves.
func TestEqualCost(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	static := "protocol static { ipv4; route 10.244.50.0/26 blackhole; }\nprotocol static { ipv6; route fd44:50::/64 blackhole; }\n"
	b.StartBIRD(static + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	second := c.StartBIRD(static + bgptest.BIRDPeer("node", c.V4, 65001, a.V4, 64512, ""))
	s := startSpeaker(t, a, "")
	snap := withPeer(withPeer(clusterOf(a), b.V4, 65001), c.V4, 65001)
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "two next hops", bgptest.Contains(s.learned,
		"10.244.50.0/26 via [10.9.0.2 10.9.0.3] from [10.9.0.2 10.9.0.3]", "fd44:50::/64 via [fd09::2 fd09::3]"))
	snap.BGP[0].Annotations = map[string]string{"muslin.io/max-paths": "1"}
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "one allowed", bgptest.Contains(s.learned, "10.244.50.0/26 via [10.9.0.2] from"))
	snap.BGP[0].Annotations = nil
	s.apply(desired(t, snap))
	second.Ask("disable", "node")
	bgptest.Eventually(t, "one left", bgptest.Contains(s.learned, "10.244.50.0/26 via [10.9.0.2] from"))
	second.Ask("enable", "node")
	bgptest.Eventually(t, "two again", bgptest.Contains(s.learned, "10.244.50.0/26 via [10.9.0.2 10.9.0.3]"))
}

// A reflector between two clients that are BIRD.
func TestReflector(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	b.StartBIRD("protocol static { ipv4; route 10.244.2.0/26 blackhole; route 172.20.0.9/32 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 64512, a.V4, 64512, ""))
	client := c.StartBIRD(bgptest.BIRDPeer("node", c.V4, 64512, a.V4, 64512, ""))
	snap := withNode(withNode(clusterOf(a), "b", b), "c", c)
	for i := range snap.Nodes {
		snap.Nodes[i].IPv6 = netip.Prefix{}
	}
	snap.Nodes[0].RouteReflectorClusterID = "1.0.0.1"
	snap.Blocks = snap.Blocks[:1]
	snap.BGP[0].MeshEnabled = off()
	snap.BGP[0].ServiceLoadBalancers = prefixes("172.20.0.0/16")
	snap.Peers = []model.BGPPeer{{Name: "rr", PeerIP: netip.MustParseAddr(a.V4), ASN: 64512}}
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "reflected", bgptest.Contains(client.Routes,
		"10.244.2.0/26", "10.244.1.0/26", "172.20.0.9/32", "BGP.next_hop: 10.9.0.2", "BGP.originator_id: 10.9.0.2", "BGP.cluster_list: 1.0.0.1"))
	snap.Nodes[0].RouteReflectorClusterID = ""
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "no longer reflected", bgptest.Lacks(client.Routes, "10.244.2.0/26"))
	bgptest.Eventually(t, "own block stays", bgptest.Contains(client.Routes, "10.244.1.0/26"))
}

// What one router says is not told another, BIRD or FRR: a server that is a way from
// one to the other carries a rack's traffic when an uplink fails. Nor is it when the
// router names a node without a router as next hop.
func TestNoTransit(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c, orphan := n.Host(1), n.Host(2), n.Host(3), n.Host(4)
	bird := b.StartBIRD(`protocol static { ipv4; route 10.244.77.0/26 blackhole; route 10.244.78.0/26 via 10.9.0.4; }
protocol static { ipv6; route fd44:0:0:77::/64 blackhole; }
protocol bgp node { local 10.9.0.2 as 65001; neighbor 10.9.0.1 as 64512; connect delay time 1; connect retry time 1; error wait time 1, 2;
  ipv4 { import all; export all; }; ipv6 { import all; export all; }; }
`)
	frr := c.StartFRR(bgptest.FRRPeer(65002, c.V4, a.V4, 64512, "", "10.244.79.0/26", "fd44:0:0:79::/64"))
	snap := withPeer(withPeer(withNode(clusterOf(a), "orphan", orphan), b.V4, 65001), c.V4, 65002)
	snap.BGP[0].MeshEnabled = off()
	for i := range snap.Peers {
		snap.Peers[i].Node = "a"
	}
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned,
		"10.244.77.0/26 via [10.9.0.2]", "10.244.78.0/26 via [10.9.0.4] from [10.9.0.2]", "fd44:0:0:77::/64", "10.244.79.0/26 via [10.9.0.3]", "fd44:0:0:79::/64"))
	atFRR := func() string { return frr.Ask("show bgp ipv4 unicast") + frr.Ask("show bgp ipv6 unicast") }
	bgptest.Eventually(t, "own at BIRD", bgptest.Contains(bird.Routes, own, "fd44::40/122"))
	bgptest.Eventually(t, "own at FRR", bgptest.Contains(atFRR, own, "fd44::40/122"))
	if bad := bgptest.Lacks(atFRR, "10.244.77.0", "10.244.78.0", "fd44:0:0:77::")(); bad != "" {
		t.Error(bad)
	}
	if bad := bgptest.Lacks(bird.Routes, "10.244.79.0", "fd44:0:0:79::")(); bad != "" {
		t.Error(bad)
	}
	for i := range snap.Peers {
		snap.Peers[i].Annotations = map[string]string{"muslin.io/re-export": "All"}
	}
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "all at FRR", bgptest.Contains(atFRR, "10.244.77.0", "10.244.78.0", "fd44:0:0:77::"))
	bgptest.Eventually(t, "all at BIRD", bgptest.Contains(bird.Routes, "10.244.79.0", "fd44:0:0:79::"))
}

// What a node learns in the cluster it tells a router only for nodes that do
// not tell it themselves.
func TestReExport(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	b.StartBIRD("protocol static { ipv4; route 10.244.2.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 64512, a.V4, 64512, ""))
	tor := c.StartBIRD("protocol static { ipv4; route 10.244.77.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", c.V4, 65001, a.V4, 64512, ""))
	snap := withPeer(withNode(clusterOf(a), "b", b), c.V4, 65001)
	snap.Peers[0].Node = "a"
	for i := range snap.Nodes {
		snap.Nodes[i].IPv6 = netip.Prefix{}
	}
	snap.Blocks = snap.Blocks[:1]
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "an orphan's block, with our next hop", bgptest.Contains(func() string { return tor.Route("10.244.2.0/26") }, "BGP.next_hop: 10.9.0.1"))
	snap.Peers[0].NextHopMode = "Keep"
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "next hop kept", bgptest.Contains(func() string { return tor.Route("10.244.2.0/26") }, "BGP.next_hop: 10.9.0.2"))
	snap.Peers[0].NextHopMode, snap.Peers[0].Node = "", ""
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "withdrawn once its owner has a router", bgptest.Lacks(tor.Routes, "10.244.2.0/26"))
	snap.Peers[0].Annotations = map[string]string{"muslin.io/re-export": "All"}
	s.apply(desired(t, snap))
	bgptest.Eventually(t, "told all the same", bgptest.Contains(tor.Routes, "10.244.2.0/26"))
}
