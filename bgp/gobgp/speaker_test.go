package gobgp

import (
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// clusterOf is a cluster whose node "a" is at host h, with one block of each
// family and a pool around them.
func clusterOf(h *bgptest.Host) model.Snapshot {
	return model.Snapshot{
		Synced: true,
		Nodes: []model.Node{{
			Name: "a", IPv4: netip.MustParsePrefix(h.V4 + "/24"), IPv6: netip.MustParsePrefix(h.V6 + "/64"),
		}},
		Pools: []model.Pool{
			{Name: "v4", CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 26},
			{Name: "v6", CIDR: netip.MustParsePrefix("fd44::/48"), BlockSize: 122},
		},
		BGP: []model.BGPConfiguration{{Name: "default"}},
		Blocks: []model.Block{
			{CIDR: netip.MustParsePrefix("10.244.1.0/26"), Node: "a", State: model.BlockConfirmed},
			{CIDR: netip.MustParsePrefix("10.244.1.64/26"), Node: "a", State: model.BlockPending},
			{CIDR: netip.MustParsePrefix("fd44::40/122"), Node: "a", State: model.BlockConfirmed},
		},
		Borrowed: prefixes("10.244.9.9/32"),
	}
}

// withNode adds a node at host h to the mesh.
func withNode(s model.Snapshot, name model.NodeName, h *bgptest.Host) model.Snapshot {
	s.Nodes = append(s.Nodes, model.Node{
		Name: name, IPv4: netip.MustParsePrefix(h.V4 + "/24"), IPv6: netip.MustParsePrefix(h.V6 + "/64"),
	})
	return s
}

// withPeer adds a global BGPPeer.
func withPeer(s model.Snapshot, addr string, as model.ASN, change ...func(*model.BGPPeer)) model.Snapshot {
	p := model.BGPPeer{Name: "peer-" + addr, PeerIP: netip.MustParseAddr(addr), ASN: as}
	for _, f := range change {
		f(&p)
	}
	s.Peers = append(s.Peers, p)
	return s
}

// A mesh neighbour that is BIRD, as in a cluster that still has Calico nodes.
func TestMeshWithBIRD(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(`protocol static s4 { ipv4; route 10.244.2.0/26 blackhole; }
protocol static s6 { ipv6; route fd44::80/122 blackhole; }
protocol bgp mesh4 { local 10.9.0.2 as 64512; neighbor 10.9.0.1 as 64512; multihop; connect delay time 1; connect retry time 1; graceful restart on; ipv4 { import all; export all; next hop self; }; }
protocol bgp mesh6 { local fd09::2 as 64512; neighbor fd09::1 as 64512; multihop; connect delay time 1; connect retry time 1; graceful restart on; ipv6 { import all; export all; next hop self; }; }
`)
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withNode(clusterOf(a), "b", b)))
	s.established("10.9.0.2")
	s.established("fd09::2")
	bgptest.Eventually(t, "block at BIRD", bgptest.Contains(bird.Routes,
		"10.244.1.0/26", "10.244.9.9/32", "fd44::40/122",
		"BGP.next_hop: 10.9.0.1", "BGP.next_hop: fd09::1", "BGP.local_pref: 2147482623", "BGP.origin: IGP"))
	if bad := bgptest.Lacks(bird.Routes, "10.244.1.64/26")(); bad != "" {
		t.Errorf("a pending block is announced: %s", bad)
	}
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned,
		"10.244.2.0/26 via [10.9.0.2] from [10.9.0.2] mesh\n", "fd44::80/122 via [fd09::2] from [fd09::2] mesh\n"))
	bgptest.Eventually(t, "converged", func() string {
		if !s.state().Converged {
			return s.peers()
		}
		return ""
	})
	bird.Reconfigure("")
	bgptest.Eventually(t, "peer gone, routes gone", bgptest.Lacks(s.learned, "via"))
}

// The mesh has a password and a restart time of its own.
func TestMeshPasswordAndRestartTime(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 64512, a.V4, 64512, `password "of the mesh"; graceful restart on;`))
	snap := withNode(clusterOf(a), "b", b)
	snap.Nodes[1].IPv6 = netip.Prefix{}
	snap.BGP[0].MeshPassword = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("of the mesh")}
	snap.BGP[0].MeshMaxRestartTime = 77 * time.Second
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	s.established(b.V4)
	bgptest.Eventually(t, "BIRD's view", bgptest.Contains(func() string { return bird.Protocol("node") }, "Established", "Restart time: 77"))
}

// Top of rack: eBGP, FRR on the other side, both families on one session.
func TestExternalPeerFRR(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	frr := b.StartFRR(FRRNode(b, "10.244.200.0/26", "0.0.0.0/0", "fd44:0:0:1::/64"))
	s := startSpeaker(t, a, "")
	s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65001)))
	s.established(b.V4)
	bgptest.Eventually(t, "v4 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv4 unicast 10.244.1.0/26") },
		"64512", "10.9.0.1 from 10.9.0.1"))
	bgptest.Eventually(t, "v6 at FRR", bgptest.Contains(func() string { return frr.Ask("show bgp ipv6 unicast fd44::40/122") },
		"64512", "fd09::1 from 10.9.0.1"))
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.244.200.0/26 via [10.9.0.2]", "0.0.0.0/0 via [10.9.0.2]", "fd44:0:0:1::/64 via [fd09::2]"))
	if bad := bgptest.Lacks(func() string { return frr.Ask("show bgp ipv4 unicast") }, "10.244.1.64")(); bad != "" {
		t.Error(bad)
	}
}

// FRRNode is an FRR in AS 65001 that peers with the speaker at 10.9.0.1.
func FRRNode(h *bgptest.Host, networks ...string) string {
	return bgptest.FRRPeer(65001, h.V4, "10.9.0.1", 64512, "", networks...)
}

func TestPassword(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, `password "first";`))
	snap := withPeer(clusterOf(a), b.V4, 65001, func(p *model.BGPPeer) {
		p.Password = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("first")}
	})
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	s.established(b.V4)
}
