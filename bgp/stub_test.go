package bgp_test

import (
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// A node is a stub: to a router it is the way to its own pods and to those of nodes
// without a router, never the way to what another router said (valley-free).
func TestNodeIsNoTransit(t *testing.T) {
	s := cluster()
	s.Nodes = append(s.Nodes, node(3, 1), node(4, 1))
	s.Nodes[4].ASN = 65200 // an orphan in an AS of its own
	s.Nodes[1].Labels["router"], s.Nodes[0].Labels["router"] = "yes", "yes"
	s.BGP[0].LocalWorkloadPeerIPv4 = addr("169.254.0.179")
	s.Workloads = []model.Workload{{Namespace: "ns", Pod: "p", Addresses: addrs("10.244.1.9")}}
	routers := sel(t, "has(router)")
	s.Peers = []model.BGPPeer{
		tor(func(p *model.BGPPeer) { p.Name, p.NodeSelector = "external", routers }),
		tor(func(p *model.BGPPeer) {
			p.Name, p.NodeSelector, p.PeerIP, p.ASN = "internal", routers, addr("10.0.1.253"), 64512
		}),
		tor(func(p *model.BGPPeer) { p.Name, p.NodeSelector, p.PeerIP = "unnumbered", routers, addr("fe80::1%eth1") }),
		tor(func(p *model.BGPPeer) { p.Name, p.NodeSelector, p.PeerIP = "self", routers, addr("10.0.1.252") }, func(p *model.BGPPeer) { p.NextHopMode = "Self" }),
		tor(func(p *model.BGPPeer) { p.Name, p.NodeSelector, p.PeerIP = "all", routers, addr("10.0.1.251") }, annotated("muslin.io/re-export", "All")),
		{Name: "pods", HasLocalWorkloadPeering: true, LocalWorkloadSelector: sel(t, "all()"), ASN: 65401},
	}
	c, problems := bgp.Desired(s, "n1")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, tc := range []struct {
		what     string
		external bool
		nextHop  string
		reported bool
	}{
		{"a router", true, "10.0.1.254", false},
		{"a router, of a node that has a router", true, "10.0.1.2", false},
		{"a router, of an orphan", true, "10.0.1.3", false},
		{"an iBGP router", false, "10.0.1.253", false},
		{"a mesh node, of its router", false, "10.0.2.254", false},
		{"a mesh node with a router", false, "10.0.1.2", false},
		{"an unnumbered router", true, "fe80::1", false},
		{"an orphan", false, "10.0.1.3", true},
		{"an orphan with an AS of its own", true, "10.0.1.4", true},
		{"a pod here", true, "10.244.1.9", true},
		{"a pod of another node", false, "10.244.3.9", true},
	} {
		for _, p := range c.Peers {
			if p.Kind == model.PeerMesh || p.IsPod() {
				continue
			}
			policy, _ := c.Policy(bgp.Export, p.Export)
			action, from := policy.Decide(bgp.Route{Prefix: prefix("10.244.9.0/26"), NextHop: addr(tc.nextHop), External: tc.external})
			if want := tc.reported || p.Object.Name == "all"; (action == bgp.Accept) != want {
				t.Errorf("what %s said, to %s: %s by %q, want told: %v", tc.what, p.Object.Name, action, from, want)
			}
			if action, _ := policy.Decide(bgp.Route{Prefix: prefix("10.244.1.0/26"), NextHop: addr("10.0.1.1"), Local: true}); action != bgp.Accept {
				t.Errorf("%s is not told the node's own block", p.Object.Name)
			}
		}
	}
}
