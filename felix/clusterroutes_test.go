package felix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// withoutBGP is base with all of IPAM known, nobody to speak BGP with, and nothing
// received: b is on the node's link, c is not, both with a block of each family.
func withoutBGP(in *Input) {
	off := false
	s := &in.Snapshot
	s.BGP = []model.BGPConfiguration{{Name: "default", MeshEnabled: &off}}
	s.LentKnown, in.Learned = true, nil
	s.Blocks = append(s.Blocks,
		model.Block{CIDR: pfx("10.65.2.0/26"), Node: "c", State: model.BlockConfirmed},
		model.Block{CIDR: pfx("fd65::1:0/122"), Node: "b", State: model.BlockConfirmed},
		model.Block{CIDR: pfx("fd65::2:0/122"), Node: "c", State: model.BlockConfirmed})
}

// withTunnels is withoutBGP with pools that ask for tunnels.
func withTunnels(ipip, vxlan model.Encap) func(in *Input) {
	return func(in *Input) {
		withoutBGP(in)
		tunnelEnds(in)
		in.Snapshot.Pools[0].IPIP, in.Snapshot.Pools[0].VXLAN = ipip, vxlan
		in.Snapshot.Pools[1].VXLAN = vxlan
	}
}

func felixSays(in *Input, clusterRoutes string) {
	in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", ClusterRoutes: clusterRoutes}}
}

// clusterRoutes are what is computed from IPAM, and what is not.
var clusterRoutes = map[string]func(in *Input){
	"host-gw":            withoutBGP,
	"vxlan-always":       withTunnels("", model.EncapAlways),
	"vxlan-cross-subnet": withTunnels("", model.EncapCrossSubnet),
	"ipip-always":        withTunnels(model.EncapAlways, ""),
	"ipip-cross-subnet":  withTunnels(model.EncapCrossSubnet, ""),
	"vxlan-device-not-there-yet": func(in *Input) {
		withTunnels("", model.EncapAlways)(in)
		in.Host.Links = in.Host.Links[:len(in.Host.Links)-2]
	},
	"vxlan-peer-without-address": func(in *Input) {
		withTunnels("", model.EncapCrossSubnet)(in)
		in.Snapshot.Nodes[2].VXLANTunnel = netip.Addr{}
	},
	"router-between-announces-default": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Peers = []model.BGPPeer{{Name: "tor", PeerIP: ip("10.1.0.254")}}
		felixSays(in, ClusterRoutesEnabled)
		in.Learned = []model.Learned{learned("0.0.0.0/0", "10.1.0.254"), learned("::/0", "fd01::254")}
	},
	"node-without-address": func(in *Input) { withoutBGP(in); in.Snapshot.Nodes[1].IPv4 = netip.Prefix{} },
	"node-gone": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Nodes = slices.Delete(in.Snapshot.Nodes, 1, 2)
	},
	"block-moved": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Nodes[2].IPv4 = pfx("10.1.0.3/24")
		in.Snapshot.Blocks[4].Node = "c"
	},
	"blocks-not-confirmed": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Blocks[4].State = model.BlockPending
		in.Snapshot.Blocks[7].State = model.BlockPendingDeletion
	},
	"block-of-two-nodes": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Nodes[2].IPv4 = pfx("10.1.0.3/24")
		in.Snapshot.Blocks = append(in.Snapshot.Blocks, model.Block{CIDR: pfx("10.65.1.0/26"), Node: "c", State: model.BlockConfirmed})
	},
	"borrowed": func(in *Input) {
		withTunnels("", model.EncapCrossSubnet)(in)
		in.Snapshot.Lent = []model.Lease{
			{Addr: ip("10.65.0.9"), Node: "b"},  // out of this node's block
			{Addr: ip("10.65.1.9"), Node: "c"},  // out of b's
			{Addr: ip("10.65.2.9"), Node: "a"},  // by this node: a pod's route, or none yet
			{Addr: ip("10.65.0.5"), Node: "b"},  // a pod of this node has it
			{Addr: ip("10.65.9.9"), Node: "b"},  // of a block of nobody
			{Addr: ip("10.65.2.8"), Node: "no"}, // of a node that is gone
		}
	},
	"outside-pools": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Blocks = append(in.Snapshot.Blocks, model.Block{CIDR: pfx("10.77.1.0/26"), Node: "b", State: model.BlockConfirmed})
	},
	"pod-cidrs": func(in *Input) {
		withTunnels("", model.EncapCrossSubnet)(in)
		in.Snapshot.Blocks = nil
		in.Snapshot.Pools[0].Disabled = true // it says what is masqueraded and tunnelled, and gives nothing
		in.Snapshot.Nodes[0].PodCIDRs = []netip.Prefix{pfx("10.65.0.0/24")}
		in.Snapshot.Nodes[1].PodCIDRs = []netip.Prefix{pfx("10.65.1.0/24"), pfx("fd65::1:0/112")} // IPv6: of a pool that gives
		in.Snapshot.Nodes[2].PodCIDRs = []netip.Prefix{pfx("10.65.2.0/24")}
	},
	"block-in-subnet-of-nodes": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Pools = append(in.Snapshot.Pools, model.Pool{Name: "wrong", CIDR: pfx("10.1.0.0/16")})
		in.Snapshot.Blocks = append(in.Snapshot.Blocks,
			model.Block{CIDR: pfx("10.1.0.0/26"), Node: "b", State: model.BlockConfirmed},
			model.Block{CIDR: pfx("10.1.0.192/26"), Node: "b", State: model.BlockConfirmed},
			model.Block{CIDR: pfx("10.1.0.64/26"), Node: "b", State: model.BlockConfirmed})
	},
	"blocks-not-known-yet": func(in *Input) { withoutBGP(in); in.Snapshot.LentKnown = false },
	"source-address": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", DeviceRouteSource: ip("10.1.0.1"), RoutePriority: 900}}
	},
	// BGP has a way to one block, knows one without a way, and not the third.
	"beside-bgp": func(in *Input) {
		withoutBGP(in)
		in.Snapshot.BGP = nil
		felixSays(in, ClusterRoutesEnabled)
		twoUplinks(in)
		in.Snapshot.Nodes[2].IPv4, in.Snapshot.Nodes[2].IPv6 = pfx("10.1.0.3/24"), pfx("fd01::3/64")
		in.Learned = []model.Learned{learned("10.65.1.0/26", "10.1.0.254", "10.9.0.254"), learned("10.65.2.0/26", "fe80::9"), learned("fd65::2:0/122", "fd01::3")}
	},
	"by-nobody": func(in *Input) {
		withTunnels("", model.EncapAlways)(in)
		in.Snapshot.Pools[0].VXLAN = model.EncapNever
		felixSays(in, ClusterRoutesDisabled)
	},
	// A mesh is wanted, and nobody has asked for anything else.
	"left-to-bgp": func(in *Input) { withoutBGP(in); in.Snapshot.BGP = nil; in.Snapshot.LentKnown = false },
}

func TestClusterRoutes(t *testing.T) {
	for name, change := range clusterRoutes {
		t.Run(name, func(t *testing.T) {
			in := base()
			change(&in)
			state, problems := Desired(in)
			golden(t, "cluster-routes/"+name, routesText(state, problems))
		})
	}
}

// routesText is what is not this node's own.
func routesText(s State, problems []model.Problem) string {
	var b strings.Builder
	for _, r := range s.Routes {
		if r.Type == Unicast && !r.LinkScope {
			b.WriteString(r.String() + s.Origin(r.Prefix) + "\n")
		}
	}
	for _, t := range s.Tunnels {
		b.WriteString(t.String())
	}
	if !s.Prune {
		b.WriteString("# not every source was heard yet: nothing is deleted\n")
	}
	for _, p := range problems {
		b.WriteString("! " + p.Reason + ": " + p.String() + "\n")
	}
	return b.String()
}

// Which pools' routes are computed, by what is set and by whether there is anybody
// to speak BGP with.
func TestComputesRoutes(t *testing.T) {
	plain, ipip, vxlan := model.Pool{Name: "plain"}, model.Pool{Name: "ipip", IPIP: model.EncapCrossSubnet}, model.Pool{Name: "vxlan", VXLAN: model.EncapAlways}
	on, off := true, false
	for _, c := range []struct{ default_, node, spoken, silent string }{
		{"", "", "", "plain ipip vxlan "},
		{"Enabled", "", "plain ipip vxlan ", "plain ipip vxlan "},
		{"EnabledIPIPOnly", "", "ipip ", "ipip vxlan "},
		{"Disabled", "", "", "vxlan "},
		{"Disabled", "Enabled", "plain ipip vxlan ", "plain ipip vxlan "},
		{"Enabled", "Disabled", "", "vxlan "},
	} {
		stated := func(s model.Snapshot) (out string) {
			s.Felix = []model.FelixConfiguration{{Name: "default", ClusterRoutes: c.default_}, {Name: "node.a", ClusterRoutes: c.node}, {Name: "node.b", ClusterRoutes: "Enabled"}}
			for _, p := range []model.Pool{plain, ipip, vxlan} {
				s.Pools = []model.Pool{p}
				if ComputesRoutes(s, "a") {
					out += p.Name + " "
				}
			}
			return out
		}
		mesh := func(enabled *bool) []model.BGPConfiguration {
			return []model.BGPConfiguration{{Name: "default", MeshEnabled: enabled}, {Name: "node.a", MeshEnabled: &off}}
		}
		for what, s := range map[string]model.Snapshot{
			"nothing said": {}, "no word of the mesh": {BGP: mesh(nil)}, "mesh": {BGP: mesh(&on)},
			"a peer": {BGP: mesh(&off), Peers: []model.BGPPeer{{Name: "tor"}}},
		} {
			if got := stated(s); got != c.spoken {
				t.Errorf("%q, on the node %q, %s: for %q, want %q", c.default_, c.node, what, got, c.spoken)
			}
		}
		if got := stated(model.Snapshot{BGP: mesh(&off)}); got != c.silent {
			t.Errorf("%q, on the node %q, nobody to speak with: for %q, want %q", c.default_, c.node, got, c.silent)
		}
	}
}

// BenchmarkClusterRoutes is the decision with what IPAM says of other nodes.
func BenchmarkClusterRoutes(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		b.Run(fmt.Sprintf("nodes=%d", n), func(b *testing.B) {
			in := base()
			withoutBGP(&in)
			in.Snapshot.Pools[0] = model.Pool{Name: "v4", CIDR: pfx("100.64.0.0/10"), VXLAN: model.EncapCrossSubnet}
			in.Snapshot.Nodes = in.Snapshot.Nodes[:1]
			in.Snapshot.Blocks = nil
			tunnelEnds(&in)
			for i := range n {
				at := func(net byte) netip.Addr {
					return netip.AddrFrom4([4]byte{net, 64 + byte(i>>10), byte(i >> 2), byte(i << 6)})
				}
				name := model.NodeName(fmt.Sprint("n", i))
				node := netip.AddrFrom4([4]byte{10, byte(1 + i>>7), 0, byte(2 + i%128)})
				in.Snapshot.Nodes = append(in.Snapshot.Nodes, model.Node{Name: name, IPv4: netip.PrefixFrom(node, 24), VXLANTunnel: at(100)})
				for j := range 2 {
					in.Snapshot.Blocks = append(in.Snapshot.Blocks, model.Block{CIDR: netip.PrefixFrom(at(byte(100+j)), 26), Node: name, State: model.BlockConfirmed})
				}
			}
			in.Snapshot.Pools = append(in.Snapshot.Pools, model.Pool{Name: "more", CIDR: pfx("101.64.0.0/10"), VXLAN: model.EncapCrossSubnet})
			b.ReportAllocs()
			for b.Loop() {
				if s, problems := Desired(in); len(s.ByIPAM) != 2*n {
					b.Fatal(len(s.ByIPAM), problems[:min(3, len(problems))])
				}
			}
		})
	}
}
