package check

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
)

var (
	n1, n2 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	block  = map[model.NodeName]netip.Prefix{"n1": netip.MustParsePrefix("10.244.1.0/26"), "n2": netip.MustParsePrefix("10.244.2.0/26")}
)

// healthy is a mesh of two nodes with a block each.
func healthy() Cluster {
	c := Cluster{
		Nodes: []model.NodeName{"n1", "n2"}, Views: map[model.NodeName]*nodeview.View{}, Errors: map[model.NodeName]string{},
		Pools:   []validate.Pool{{Pool: model.Pool{Name: "pool", CIDR: netip.MustParsePrefix("10.244.0.0/16"), BlockSize: 26}, Created: time.Unix(1, 0)}},
		Answers: map[model.NodeName]map[netip.Addr]explain.Answer{},
	}
	s := model.Snapshot{Synced: true, Nodes: []model.Node{{Name: "n1", IPv4: netip.PrefixFrom(n1, 24)}, {Name: "n2", IPv4: netip.PrefixFrom(n2, 24)}}, Pools: modelPools(c.Pools)}
	for _, n := range c.Nodes {
		c.Blocks = append(c.Blocks, model.Block{CIDR: block[n], Node: n, State: model.BlockConfirmed})
	}
	for _, n := range c.Nodes {
		far, peer, gateway := model.NodeName("n2"), "n2", n2
		if n == "n2" {
			far, peer, gateway = "n1", "n1", n1
		}
		mine := s
		mine.Blocks = []model.Block{{CIDR: block[n], Node: n, State: model.BlockConfirmed}}
		config, _ := bgp.Desired(mine, n)
		route := felix.Route{Prefix: block[far], Metric: 1024, NextHopGroup: &felix.NextHopGroup{NextHops: []felix.NextHop{{Gateway: gateway, Device: "eth0"}}}}
		c.Views[n] = &nodeview.View{
			Node: n, BGP: config, Peers: []model.PeerStatus{{Address: gateway, State: "Established", Object: model.Ref{Kind: "Node", Name: peer}}},
			Learned: []model.Learned{{Prefix: block[far], Multipath: &model.Multipath{NextHops: []netip.Addr{gateway}, From: []netip.Addr{gateway}}}},
			State:   felix.State{Routes: []felix.Route{route}, MTU: felix.MTU{Pod: 1500}},
			Kernel:  nodeview.Kernel{Routes: []nodeview.Route{{Prefix: block[far], Type: "unicast", Protocol: 109, Metric: 1024, NextHops: []nodeview.NextHop{{Gateway: gateway, Device: "eth0"}}}}},
		}
	}
	return c
}

func TestEveryFindingIsNamed(t *testing.T) {
	for _, f := range []struct {
		name   string
		plant  func(*Cluster)
		want   string // class, node and part of the object; empty: nothing
		warned bool
	}{
		{"nothing", func(*Cluster) {}, "", false},
		{"no agent", func(c *Cluster) { delete(c.Views, "n2"); c.Errors["n2"] = "gone" }, "AgentDown n2 Node n2", false},
		{"not ready", func(c *Cluster) { c.Views["n1"].Waiting = []string{"kernel"} }, "AgentNotReady n1 Node n1", false},
		{"no pool", func(c *Cluster) { c.Pools, c.Blocks = nil, nil }, "NoPool  IPPool", false},
		{"a pool over another", func(c *Cluster) {
			c.Pools = append(c.Pools, validate.Pool{Pool: model.Pool{Name: "twin", CIDR: netip.MustParsePrefix("10.244.0.0/17"), BlockSize: 26}, Created: time.Unix(2, 0)})
		}, "CIDROverlap  IPPool twin", false},
		{"a pool over a router", func(c *Cluster) {
			c.Pools[0].InUse = []validate.InUse{{CIDR: netip.MustParsePrefix("10.244.7.0/24"), Object: model.Ref{Kind: "Node", Name: "n1"}, Reason: validate.ReasonOverlapsNode}}
		}, "OverlapsNode  IPPool pool", true},
		{"a block in no pool", func(c *Cluster) {
			c.Blocks = append(c.Blocks, model.Block{CIDR: netip.MustParsePrefix("10.9.0.0/26"), Node: "n1", State: model.BlockPending})
		}, "StrayBlock n1 10.9.0.0/26", false},
		{"an owner that is gone", func(c *Cluster) {
			c.Blocks = append(c.Blocks, model.Block{CIDR: netip.MustParsePrefix("10.244.9.0/26"), Node: "n9", State: model.BlockConfirmed})
		}, "StaleOwner n9 10.244.9.0/26", false},
		{"two owners", func(c *Cluster) {
			c.Blocks = append(c.Blocks, model.Block{CIDR: block["n1"], Node: "n2", State: model.BlockConfirmed})
		}, "StaleOwner n2 10.244.1.0/26", false},
		{"a session down", func(c *Cluster) { c.Views["n1"].Peers[0].State = "Active" }, "PeerDown n1 Node n2", false},
		{"an OPEN refused", func(c *Cluster) {
			c.Views["n1"].Peers[0].State = "Active"
			c.Answers["n1"] = map[netip.Addr]explain.Answer{n2: {Echo: true, Refused: true}}
		}, "WrongAS n1 spec.asNumber", false},
		{"a route gone", func(c *Cluster) { c.Views["n1"].Kernel.Routes = nil }, "NotInstalled n1 10.244.2.0/26", false},
		{"a route in the place of ours", func(c *Cluster) {
			c.Views["n1"].Kernel.Routes = []nodeview.Route{{Prefix: block["n2"], Type: "blackhole", Protocol: 4, Metric: 1024}}
		}, "NotInstalled n1 10.244.2.0/26", false},
		{"a route overridden", func(c *Cluster) {
			c.Views["n1"].Kernel.Routes = append(c.Views["n1"].Kernel.Routes, nodeview.Route{Prefix: block["n2"], Type: "unicast", Protocol: 4, Metric: 5})
		}, "Shadowed n1 10.244.2.0/26", false},
		{"a route too many", func(c *Cluster) {
			c.Views["n1"].Kernel.Routes = append(c.Views["n1"].Kernel.Routes, nodeview.Route{Prefix: netip.MustParsePrefix("10.1.0.0/24"), Type: "unicast", Protocol: 109})
		}, "RouteSurplus n1 10.1.0.0/24", false},
		{"a tunnel missing", func(c *Cluster) { c.Views["n1"].State.Tunnels = []felix.Tunnel{{Name: "vxlan.calico"}} }, "TunnelMissing n1 vxlan.calico", false},
		{"a kernel that cannot be read", func(c *Cluster) { c.Views["n1"].Kernel.Errors = []string{"nftables: no"} }, "KernelUnread n1 Node n1", true},
		{"a chain that drops", func(c *Cluster) {
			c.Views["n1"].Kernel.Chains = []nodeview.Chain{{Family: "inet", Table: "wall", Name: "c", Hook: "forward", Drops: true}}
		}, "DropsByDefault n1 chain inet wall c", true},
		{"a prefix of nobody", func(c *Cluster) {
			c.Views["n1"].Learned = append(c.Views["n1"].Learned, model.Learned{Prefix: netip.MustParsePrefix("10.244.77.0/26"), Multipath: &model.Multipath{NextHops: []netip.Addr{n2}, From: []netip.Addr{n2}}})
		}, "ForeignOrigin n1 10.244.77.0/26", false},
		{"MTUs that differ", func(c *Cluster) { c.Views["n2"].State.MTU.Pod = 1450 }, "MTUDiffers n2 Node n2", false},
		{"a problem", func(c *Cluster) {
			c.Views["n1"].Problems = []model.Problem{{Object: model.Ref{Kind: "BGPPeer", Name: "p"}, Field: "spec.filters", Reason: "Unknown"}}
		}, "Unknown n1 BGPPeer p", true},
		{"a way that is broken", func(c *Cluster) { c.Paths = []Path{path(explain.Unresolved, "link eth0")} }, "Unresolved n1 link eth0", false},
		{"a way that may be meant so", func(c *Cluster) { c.Paths = []Path{path(explain.NotExported, "IPPool pool")} }, "NotExported n1 IPPool pool", true},
	} {
		t.Run(f.name, func(t *testing.T) {
			c := healthy()
			f.plant(&c)
			got := Run(c)
			if f.want == "" {
				if len(got) > 0 {
					t.Errorf("got %+v", got)
				}
				return
			}
			w := strings.SplitN(f.want, " ", 3)
			severity := Error
			if f.warned {
				severity = Warning
			}
			if !slices.ContainsFunc(got, func(g Finding) bool {
				return g.Class == w[0] && g.Node == w[1] && strings.Contains(g.Object, w[2]) && g.Severity == severity
			}) {
				t.Errorf("got %+v, want %s of %s", got, severity, f.want)
			}
		})
	}
}

func path(class explain.Class, object string) Path {
	return Path{From: "n1", To: "n2", Story: explain.Story{Broken: class, Object: object, Fix: "mend it", Steps: []explain.Step{{Text: "it is broken"}}}}
}

// A broken way says more than that a block is unreachable, and says it once.
func TestABrokenWayIsToldOnce(t *testing.T) {
	c := healthy()
	c.Views["n1"].Kernel.Routes, c.Views["n1"].State.Routes = nil, nil
	if got := Run(c); len(got) != 1 || got[0].Class != "BlockUnreachable" {
		t.Fatalf("got %+v", got)
	}
	c.Paths = []Path{path(explain.FilterRejects, "BGPFilter f"), path(explain.FilterRejects, "BGPFilter f")}
	if got := Run(c); len(got) != 1 || got[0].Class != "FilterRejects" {
		t.Errorf("got %+v", got)
	}
}
