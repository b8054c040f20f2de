package preview

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

var address = map[model.NodeName]netip.Prefix{
	"n1": netip.MustParsePrefix("10.1.1.11/24"), "n2": netip.MustParsePrefix("10.1.1.12/24"), "n3": netip.MustParsePrefix("10.1.2.11/24"),
}

var tor = map[string]netip.Addr{"r1": netip.MustParseAddr("10.1.1.1"), "r2": netip.MustParseAddr("10.1.2.1")}

// snapshot is three nodes in two racks, a mesh and a router a rack.
func snapshot() model.Snapshot {
	on := true
	s := model.Snapshot{
		Synced: true, Pools: []model.Pool{{Name: "pool", CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 26}},
		BGP: []model.BGPConfiguration{{Name: "default", ASN: 64512, MeshEnabled: &on}},
	}
	for i, n := range []model.NodeName{"n1", "n2", "n3"} {
		s.Nodes = append(s.Nodes, model.Node{Name: n, IPv4: address[n]})
		s.Blocks = append(s.Blocks, model.Block{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0}), 26), Node: n, State: model.BlockConfirmed})
		rack := "r1"
		if n == "n3" {
			rack = "r2"
		}
		s.Peers = append(s.Peers, model.BGPPeer{Name: "rack-" + string(n), Node: n, PeerIP: tor[rack], ASN: map[string]model.ASN{"r1": 65101, "r2": 65102}[rack]})
	}
	return s
}

func sideOf(s model.Snapshot) Side {
	of := func(n model.NodeName) model.Snapshot {
		own := s
		own.Blocks = slices.DeleteFunc(slices.Clone(s.Blocks), func(b model.Block) bool { return b.Node != n })
		return own
	}
	plan, _ := Plans(s.Nodes, of, live().FIB)
	return Side{Plan: plan, Of: of}
}

// live is a cluster whose agents all answer and whose sessions are all up.
func live() Live {
	l := Live{Hosts: map[model.NodeName]model.Host{}, FIB: map[model.NodeName]bgp.FIB{}, Up: map[model.NodeName]map[netip.Addr]bool{}}
	for n, a := range address {
		gateway := tor["r1"]
		if n == "n3" {
			gateway = tor["r2"]
		}
		l.Hosts[n] = model.Host{
			Links: []model.Link{{Index: 2, Name: "eth0", Up: true, AdminUp: true, MTU: 1500, Addresses: []netip.Prefix{a}}},
			Routes: []model.HostRoute{
				{Prefix: a.Masked(), LinkIndex: 2},
				{Prefix: netip.MustParsePrefix("0.0.0.0/0"), Gateways: []netip.Addr{gateway}, LinkIndex: 2},
			},
		}
		l.FIB[n] = bgp.NewFIB(l.Hosts[n], nil)
		l.Up[n] = map[netip.Addr]bool{gateway: true}
	}
	l.Pods = func(model.NodeName, netip.Prefix) int { return 2 }
	return l
}

func TestChangesArePredicted(t *testing.T) {
	off := false
	for _, c := range []struct {
		name   string
		change func(*model.Snapshot)
		want   []string // lines that have to be there
		not    []string // parts of lines that must not
	}{
		{"nothing", func(*model.Snapshot) {}, []string{"0 session(s) go down, 0 change, 0 way(s) between nodes change."}, []string{"node n"}},
		{"a private pool", func(s *model.Snapshot) {
			s.Pools = []model.Pool{{Name: "pool", CIDR: s.Pools[0].CIDR, BlockSize: 26, DisableBGPExport: true}}
		},
			[]string{"changed  node n1, peer 10.1.1.1 (BGPPeer rack-n1): routes are sent again; the session stays up", "           - 10.244.1.0/26", "lost     node n1 to block 10.244.3.0/26 of node n3 (2 pods): was via 10.1.1.1 dev eth0"}, []string{"reset", "removed"}},
		{"no mesh", func(s *model.Snapshot) {
			s.BGP = []model.BGPConfiguration{{Name: "default", ASN: 64512, MeshEnabled: &off}}
		},
			[]string{"removed  node n1, peer 10.1.1.12 (Node n2)", "lost     node n1 to block 10.244.2.0/26 of node n2 (2 pods): was via 10.1.1.12 dev eth0"}, []string{"\nmoved"}},
		{"no mesh, and routers that bring what nodes announce", func(s *model.Snapshot) {
			s.BGP = []model.BGPConfiguration{{Name: "default", ASN: 64512, MeshEnabled: &off}}
			for i := range s.Peers {
				s.Peers[i].NumAllowedLocalASNs = 1
			}
		}, []string{"moved    node n1 to block 10.244.2.0/26 of node n2 (2 pods): via 10.1.1.12 dev eth0 becomes via 10.1.1.1 dev eth0"}, []string{"lost", "block 10.244.3.0/26 of node n3 (2 pods)"}},
		{"no mesh, and a filter on the link to the router", func(s *model.Snapshot) {
			s.BGP = []model.BGPConfiguration{{Name: "default", ASN: 64512, MeshEnabled: &off}}
			s.Filters = []model.BGPFilter{{Name: "f", ImportV4: []model.FilterRule{{Interface: "eth0"}}}}
			for i := range s.Peers {
				s.Peers[i].NumAllowedLocalASNs = 1
			}
			s.Peers[0].Filters = []string{"f"}
		}, []string{"lost     node n1 to block 10.244.2.0/26 of node n2 (2 pods): was via 10.1.1.12 dev eth0", "moved    node n2 to block 10.244.1.0/26 of node n1 (2 pods): via 10.1.1.11 dev eth0 becomes via 10.1.1.1 dev eth0"}, []string{"lost     node n2"}},
		{"a tunnel", func(s *model.Snapshot) {
			s.Pools = []model.Pool{{Name: "pool", CIDR: s.Pools[0].CIDR, BlockSize: 26, VXLAN: model.EncapAlways}}
		},
			[]string{"moved    node n1 to block 10.244.2.0/26 of node n2 (2 pods): via 10.1.1.12 dev eth0 becomes dev vxlan.calico"}, []string{"reset"}},
		{"a tunnel across subnets", func(s *model.Snapshot) {
			s.Pools = []model.Pool{{Name: "pool", CIDR: s.Pools[0].CIDR, BlockSize: 26, IPIP: model.EncapCrossSubnet}}
		},
			[]string{"moved    node n1 to block 10.244.3.0/26 of node n3 (2 pods): via 10.1.1.1 dev eth0 becomes dev tunl0"}, []string{"node n1 to block 10.244.2.0/26"}},
		{"a wrong AS", func(s *model.Snapshot) { s.Peers[0].ASN = 65199 },
			[]string{"reset    node n1, peer 10.1.1.1 (BGPPeer rack-n1): AS number changes; it stays down: the peer says AS 65101", "           - 10.244.1.0/26"}, []string{"node n2"}},
		{"another AS of a node", func(s *model.Snapshot) { s.Nodes[2].ASN = 64600 },
			[]string{"reset    node n3, peer 10.1.2.1 (BGPPeer rack-n3): the node's own AS number, router id or listening address changes; it stays down until the peer expects AS 64600"}, nil},
		{"a password", func(s *model.Snapshot) {
			s.Peers[0].Password = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret("x")}
		},
			[]string{"reset    node n1, peer 10.1.1.1 (BGPPeer rack-n1): password changes; it stays down until the peer has the same password"}, nil},
		{"a node that leaves its router", func(s *model.Snapshot) { s.Peers = s.Peers[1:] }, []string{"removed  node n1, peer 10.1.1.1 (BGPPeer rack-n1)"}, nil},
		{"a node that is drained", func(s *model.Snapshot) { s.Nodes[2].Annotations = map[string]string{"muslin.io/drain": "Withdrawn"} },
			[]string{"removed  node n3, peer 10.1.2.1 (BGPPeer rack-n3)", "down     node n1, peer 10.1.2.11 (Node n3): node n3 does not take part any more", "lost     node n1 to block 10.244.3.0/26 of node n3 (2 pods): was via 10.1.1.1 dev eth0"}, nil},
		{"a new node", func(s *model.Snapshot) {
			s.Nodes = append(s.Nodes, model.Node{Name: "n4", IPv4: netip.MustParsePrefix("10.1.1.14/24")})
			s.Blocks = append(s.Blocks, model.Block{CIDR: netip.MustParsePrefix("10.244.4.0/26"), Node: "n4", State: model.BlockConfirmed})
		}, []string{"added    node n1, peer 10.1.1.14 (Node n4)", "gained   node n1 to block 10.244.4.0/26 of node n4 (2 pods): via 10.1.1.14 dev eth0", "gained   node n4 to block 10.244.1.0/26 of node n1 (2 pods): next hop 10.1.1.11"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := snapshot()
			c.change(&after)
			got := Compare(sideOf(snapshot()), sideOf(after), live()).Text()
			lines := strings.Split(got, "\n")
			for _, w := range c.want {
				if !slices.Contains(lines, w) {
					t.Errorf("no line %q in\n%s", w, got)
				}
			}
			for _, n := range c.not {
				if strings.Contains(got, n) {
					t.Errorf("%q is in\n%s", n, got)
				}
			}
		})
	}
}

// A reflector brings its clients what they do not hear from each other.
func TestAReflectorPassesOn(t *testing.T) {
	s := snapshot()
	off := false
	s.BGP = []model.BGPConfiguration{{Name: "default", ASN: 64512, MeshEnabled: &off}}
	s.Peers = nil
	before := sideOf(s)
	s.Nodes = slices.Clone(s.Nodes)
	s.Nodes[1].RouteReflectorClusterID = "10.0.0.1"
	for _, n := range []model.NodeName{"n1", "n3"} {
		s.Peers = append(s.Peers, model.BGPPeer{Name: "to-" + string(n), Node: n, PeerIP: address["n2"].Addr(), ASN: 64512},
			model.BGPPeer{Name: "from-" + string(n), Node: "n2", PeerIP: address[n].Addr(), ASN: 64512})
	}
	got := Compare(before, sideOf(s), live()).Text()
	if want := "gained   node n1 to block 10.244.3.0/26 of node n3 (2 pods): via 10.1.1.1 dev eth0"; !strings.Contains(got, want) {
		t.Errorf("no %q in\n%s", want, got)
	}
}
