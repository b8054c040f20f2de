package explain

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

var (
	pod    = netip.MustParseAddr("10.244.1.5")
	block  = netip.MustParsePrefix("10.244.1.0/26")
	n1, n2 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
)

// config is the decision of the real thing for two nodes, a mesh, and what a
// test adds.
func config(t *testing.T, self model.NodeName, change func(*model.Snapshot)) bgp.Config {
	t.Helper()
	s := model.Snapshot{
		Synced: true,
		Nodes:  []model.Node{{Name: "n1", IPv4: netip.PrefixFrom(n1, 24)}, {Name: "n2", IPv4: netip.PrefixFrom(n2, 24)}},
		Pools:  []model.Pool{{Name: "pool", CIDR: netip.MustParsePrefix("10.244.0.0/16")}},
	}
	if self == "n1" {
		s.Blocks = []model.Block{{CIDR: block, Node: "n1", State: model.BlockConfirmed}}
	}
	if change != nil {
		change(&s)
	}
	c, _ := bgp.Desired(s, self)
	if c.ASN == 0 {
		t.Fatal("no decision")
	}
	return c
}

// healthy is a pod on n1 that n2 reaches.
func healthy(t *testing.T) Facts {
	session := func(to netip.Addr, node string) []model.PeerStatus {
		return []model.PeerStatus{{Address: to, ASN: 64512, State: "Established", Object: model.Ref{Kind: "Node", Name: node}}}
	}
	host := felix.Route{Prefix: netip.PrefixFrom(pod, 32), Metric: 1024, NextHopGroup: &felix.NextHopGroup{LinkScope: true, NextHops: []felix.NextHop{{Device: "cali1"}}}}
	remote := felix.Route{Prefix: block, Metric: 1024, NextHopGroup: &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: n1, Device: "eth0"}}}}
	return Facts{
		To: pod, Pod: &Pod{Namespace: "default", Name: "web", Node: "n1", Phase: "Running"},
		Block: &Block{CIDR: block, Node: "n1", Handle: "h", Assigned: true, Affinities: map[model.NodeName]model.BlockState{"n1": model.BlockConfirmed}},
		Pools: []model.Pool{{Name: "pool", CIDR: netip.MustParsePrefix("10.244.0.0/16")}},
		Nodes: map[model.NodeName]bool{"n1": true, "n2": true}, Reach: map[netip.Addr]Answer{n2: {Echo: true}}, FromNode: "n2",
		Owner: &nodeview.View{Node: "n1", BGP: config(t, "n1", nil), Peers: session(n2, "n2"), State: felix.State{Routes: []felix.Route{host}},
			Kernel: nodeview.Kernel{Routes: []nodeview.Route{{Prefix: host.Prefix, Type: "unicast", Protocol: 109, Metric: 1024, NextHops: []nodeview.NextHop{{Device: "cali1"}}}}}},
		From: &nodeview.View{Node: "n2", BGP: config(t, "n2", nil), Peers: session(n1, "n1"), State: felix.State{Routes: []felix.Route{remote}},
			Learned: []model.Learned{{Prefix: block, Multipath: &model.Multipath{NextHops: []netip.Addr{n1}, From: []netip.Addr{n1}}}},
			Kernel:  nodeview.Kernel{Routes: []nodeview.Route{{Prefix: block, Type: "unicast", Protocol: 109, Metric: 1024, NextHops: []nodeview.NextHop{{Gateway: n1, Device: "eth0"}}}}}},
		Path: &nodeview.Path{To: pod, Device: "eth0", MTU: 1500, Neighbour: "reachable", Small: nodeview.Probe{Size: 84, OK: true}, Large: nodeview.Probe{Size: 1500, OK: true}},
	}
}

// withoutBGP has nobody to speak with, and the block from IPAM.
func withoutBGP(f *Facts) {
	f.Owner.Peers, f.From.Peers, f.From.Learned = nil, nil, nil
	f.From.Others, f.From.State.ByIPAM = 1, []netip.Prefix{block}
}

// unlearned has the session down, and what came over it gone.
func unlearned(f *Facts, why string) {
	f.Owner.Peers[0].State, f.Owner.Peers[0].LastError = "Active", why
	f.From.Learned = nil
}

func peered(filters ...string) func(*model.Snapshot) {
	return func(s *model.Snapshot) {
		off := false
		s.BGP = []model.BGPConfiguration{{Name: "default", MeshEnabled: &off}}
		s.Peers = []model.BGPPeer{{Name: "a", Node: "n1", PeerIP: n2, ASN: 64512, Filters: filters}, {Name: "b", Node: "n2", PeerIP: n1, ASN: 64512, Filters: filters}}
		s.Filters = []model.BGPFilter{{Name: "f", ExportV4: []model.FilterRule{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), MatchOperator: "In"}}},
			{Name: "g", ImportV4: []model.FilterRule{{CIDR: netip.MustParsePrefix("10.244.0.0/16"), MatchOperator: "In"}}}}
	}
}

func TestEveryBrokenLinkIsNamed(t *testing.T) {
	for _, c := range []struct {
		name   string
		plant  func(t *testing.T, f *Facts)
		want   Class
		object string // part of what is to be changed
	}{
		{"nothing", func(*testing.T, *Facts) {}, "", ""},
		{"no block", func(_ *testing.T, f *Facts) { f.Block = nil }, NotAssigned, ""},
		{"a leak", func(_ *testing.T, f *Facts) { f.Pod = nil }, NotAssigned, "handle h"},
		{"a pod that waits", func(_ *testing.T, f *Facts) { f.Pod.Phase = "Pending" }, PodNotRunning, "Pod default/web"},
		{"two claims", func(_ *testing.T, f *Facts) { f.Block.Affinities["n3"] = model.BlockConfirmed }, StaleOwner, "BlockAffinity"},
		{"an owner that is gone", func(_ *testing.T, f *Facts) { f.Nodes["n1"] = false }, StaleOwner, "BlockAffinity"},
		{"a claim that is pending", func(_ *testing.T, f *Facts) { f.Block.Affinities["n1"] = model.BlockPending }, StaleOwner, "BlockAffinity"},
		{"the owner's agent", func(_ *testing.T, f *Facts) { f.Owner, f.OwnerError = nil, "gone" }, AgentDown, "n1"},
		{"the asker's agent", func(_ *testing.T, f *Facts) { f.From, f.FromError = nil, "gone" }, AgentDown, "n2"},
		{"no interface", func(_ *testing.T, f *Facts) { f.Owner.State.Routes = nil }, PodUnplugged, "Pod default/web"},
		{"the pod's route is gone", func(_ *testing.T, f *Facts) { f.Owner.Kernel.Routes = nil }, PodUnplugged, "node n1"},
		{"a pool that is private", func(_ *testing.T, f *Facts) { f.Pools[0].DisableBGPExport = true }, NotExported, "IPPool pool: spec.disableBGPExport"},
		{"routes from IPAM", func(_ *testing.T, f *Facts) { withoutBGP(f); f.Pools[0].DisableBGPExport = true }, "", ""},
		{"no route from IPAM", func(_ *testing.T, f *Facts) {
			withoutBGP(f)
			f.From.State.Routes, f.From.State.ByIPAM = nil, nil
			f.From.Problems = []model.Problem{{Object: model.Ref{Kind: "IPPool", Name: "pool"}, Field: "spec.vxlanMode", Message: "no tunnel"}}
		}, NotComputed, "IPPool pool: spec.vxlanMode"},
		{"an export filter", func(t *testing.T, f *Facts) {
			f.Owner.BGP, f.From.BGP, f.From.Learned = config(t, "n1", peered("f")), config(t, "n2", peered("f")), nil
		}, FilterRejects, "BGPFilter f: spec.exportV4[0]"},
		{"an import filter", func(t *testing.T, f *Facts) {
			f.Owner.BGP, f.From.BGP, f.From.Learned = config(t, "n1", peered()), config(t, "n2", peered("g")), nil
		}, FilterRejects, "BGPFilter g: spec.importV4[0]"},
		{"a peer that is down", func(_ *testing.T, f *Facts) { unlearned(f, ""); f.Reach[n2] = Answer{} }, PeerDown, "Node n2"},
		{"a peer without BGP", func(_ *testing.T, f *Facts) { unlearned(f, "") }, PeerDown, "Node n2"},
		{"a wrong AS, told by the peer", func(_ *testing.T, f *Facts) {
			unlearned(f, "bad peer AS: the peer says another AS number than 64512, which is configured here")
		}, WrongAS, "spec.asNumber"},
		{"an OPEN that is refused", func(_ *testing.T, f *Facts) {
			unlearned(f, "the peer refused this node's OPEN with a NOTIFICATION: it may expect another AS number than 64512")
		}, WrongAS, "spec.asNumber"},
		{"a password that times out", func(_ *testing.T, f *Facts) {
			unlearned(f, "connection timed out: no answer from port 179 of the peer; one with another password does not answer either")
			f.Owner.BGP.Peers[0].Password, f.From.BGP.Peers[0].Password = model.NewSecret("<redacted>"), model.NewSecret("<redacted>")
		}, WrongPassword, "spec.password"},
		{"a wrong AS, refused here", func(_ *testing.T, f *Facts) {
			unlearned(f, "cease")
			f.Reach[n2] = Answer{Echo: true, Refused: true}
		}, WrongAS, "spec.asNumber"},
		{"a router of the asker's that is down", func(t *testing.T, f *Facts) {
			f.From.Learned = nil
			f.Owner.Peers[0].Object, f.From.Peers[0].Object = model.Ref{Kind: "BGPPeer", Name: "a"}, model.Ref{Kind: "BGPPeer", Name: "b"}
			f.From.Peers[0].State = "Active"
		}, PeerDown, "BGPPeer b"},
		{"a wrong AS, seen on both sides", func(t *testing.T, f *Facts) {
			unlearned(f, "")
			f.From.BGP = config(t, "n2", func(s *model.Snapshot) { s.Nodes[0].ASN = 65000 })
		}, WrongAS, "spec.asNumber"},
		{"a wrong password", func(_ *testing.T, f *Facts) {
			unlearned(f, "")
			f.Owner.BGP.Peers[0].Password, f.From.BGP.Peers[0].Password = model.NewSecret("<redacted>"), model.NewSecret("<redacted>")
		}, WrongPassword, "spec.password"},
		{"a password on one side", func(_ *testing.T, f *Facts) {
			unlearned(f, "")
			f.Owner.BGP.Peers[0].Password = model.NewSecret("<redacted>")
		}, WrongPassword, "spec.password"},
		{"sent and not arrived", func(_ *testing.T, f *Facts) { f.From.Learned = nil }, NotLearned, "node n2"},
		{"no tunnel device", func(_ *testing.T, f *Facts) { f.From.State.Tunnels = []felix.Tunnel{{Name: "muslin.ipip"}} }, TunnelMissing, "muslin.ipip"},
		{"a tunnel device that is down", func(_ *testing.T, f *Facts) {
			f.From.State.Tunnels, f.From.Kernel.Links = []felix.Tunnel{{Name: "muslin.ipip"}}, []nodeview.Link{{Name: "muslin.ipip"}}
		}, TunnelMissing, "muslin.ipip"},
		{"a route deleted and not repaired", func(_ *testing.T, f *Facts) { f.From.Kernel.Routes = nil }, NotInstalled, "node n2"},
		{"a route another protocol overrides", func(_ *testing.T, f *Facts) {
			f.From.Kernel.Routes = append(f.From.Kernel.Routes, nodeview.Route{Prefix: block, Type: "unicast", Protocol: 4, Metric: 5})
		}, Shadowed, "static"},
		{"a route another protocol has cut out of it", func(_ *testing.T, f *Facts) {
			f.From.Kernel.Routes = append(f.From.Kernel.Routes, nodeview.Route{Prefix: netip.PrefixFrom(pod, 32), Type: "blackhole", Protocol: 12})
		}, Shadowed, "bird"},
		{"a route of somebody else in its place", func(_ *testing.T, f *Facts) {
			f.From.Kernel.Routes = []nodeview.Route{{Prefix: block, Type: "blackhole", Protocol: 4, Metric: 1024}}
		}, NotInstalled, "static on node n2"},
		{"a link without carrier", func(_ *testing.T, f *Facts) { f.From.Kernel.Routes[0].NextHops[0].Down = true }, LinkDown, "eth0"},
		{"a rule that forbids", func(_ *testing.T, f *Facts) { f.Path.Error = "network is unreachable" }, NotInstalled, "rules"},
		{"a neighbour that does not answer", func(_ *testing.T, f *Facts) {
			f.Path.Neighbour, f.Path.Small.OK = "failed", false
		}, Unresolved, "eth0"},
		{"a firewall", func(_ *testing.T, f *Facts) {
			f.Path.Small.OK = false
			f.Owner.Kernel.Chains = []nodeview.Chain{{Family: "inet", Table: "wall", Name: "c", Hook: "forward", Drops: true}}
		}, Dropped, "inet wall, chain c on node n1"},
		{"a policy between two pods", func(t *testing.T, f *Facts) {
			j := Evaluate(view(ingress(t, "a")), nodes, client, web)
			f.Policy = &j
		}, PolicyDenies, "NetworkPolicy default/a: spec.ingress"},
		{"a policy that lets something pass", func(t *testing.T, f *Facts) {
			j := Evaluate(view(ingress(t, "a", to(80))), nodes, client, web)
			f.Policy = &j
		}, "", ""},
		{"a policy that drops the probe, before the firewall", func(t *testing.T, f *Facts) {
			j := Evaluate(view(ingress(t, "a", to(80))), nodes, End{Addr: n2}, web)
			f.Policy, f.Path.Small.OK = &j, false
			f.Owner.Kernel.Chains = []nodeview.Chain{{Family: "inet", Table: "wall", Name: "c", Hook: "forward", Drops: true}}
		}, PolicyDenies, "NetworkPolicy default/a: spec.ingress"},
		{"a policy that is not known", func(_ *testing.T, f *Facts) { f.PolicyError = "forbidden" }, "", ""},
		{"silence", func(_ *testing.T, f *Facts) { f.Path.Small.OK = false }, NoAnswer, ""},
		{"an MTU on the way", func(_ *testing.T, f *Facts) { f.Path.Large.OK = false }, MTUTooSmall, "between node n2 and node n1"},
		{"an MTU here", func(_ *testing.T, f *Facts) { f.Path.Large.OK, f.Path.MTU = false, 1300 }, MTUTooSmall, "link eth0 on node n2: MTU 1300"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := healthy(t)
			c.plant(t, &f)
			s := Tell(f)
			if s.Broken != c.want || !strings.Contains(s.Object, c.object) {
				t.Errorf("got %q, change %q; want %q, change %q\n%s", s.Broken, s.Object, c.want, c.object, s.Text())
			}
			broken := slices.ContainsFunc(s.Steps, func(st Step) bool { return !st.OK })
			if broken != (c.want != "") || c.want != "" && s.Steps[len(s.Steps)-1].OK {
				t.Errorf("the last step, and no other, has to be the broken one:\n%s", s.Text())
			}
		})
	}
}

func TestTheOwnerItselfNeedsNoBGP(t *testing.T) {
	f := healthy(t)
	f.FromNode, f.From = "n1", f.Owner
	f.Pools[0].DisableBGPExport = true
	if s := Tell(f); s.Broken != "" {
		t.Error(s.Text())
	}
}
