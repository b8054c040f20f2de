package app

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// inputs are everything that the data plane and BGP are decided by. Each has one
// writer, named beside it, who tells nobody: a loop waits for those that it read.
type inputs struct {
	node model.NodeName
	read func() // takes in what kernel and allocator have told by now

	assign   task.Cell[assigned]              // feedAllocator: what the allocator was given
	cluster  task.Cell[cluster]               // feedAllocator, once the allocator knows it
	common   task.Cell[cluster]               // feedAllocator, after cluster: what of it not BGP alone is decided by
	held     task.Cell[holdings]              // followHoldings: there before the API server has it
	host     task.Cell[host]                  // followHost: the kernel
	rib      task.Cell[rib]                   // bgpLoop: what peers announce
	config   task.Cell[*bgp.Config]           // bgpLoop: what the speaker is being given, before it has done it
	tunnels  task.Cell[felix.TunnelAddresses] // ownAddresses: before the API server knows them
	floating task.Cell[[]netip.Prefix]        // dataplane: see announced
	pods     *task.Cell[podSet]               // endpoints: the CNI server
	podCIDRs *task.Cell[[]netip.Prefix]       // podCIDRs: those in use
	saved    *task.Cell[*savedState]          // lastState: while it is in force
	origin   *task.Cell[originView]           // feedAllocator
}

// cluster is what the API server tells of the cluster, and of this node's pods.
type cluster struct {
	model.Snapshot
	pods   []kube.Pod
	blocks kube.Blocks // of all nodes, while they are asked for
}

// assigned is what the allocator is decided by.
type assigned struct {
	self     model.Node
	pools    []model.Pool
	reserved []netip.Prefix
	ipam     model.IPAM
}

func assignedOf(s model.Snapshot, node model.NodeName) assigned {
	self, _ := s.Node(node)
	return assigned{self, s.Pools, s.Reserved, s.IPAM}
}

// learn takes in what the API server tells by now.
func (in *inputs) learn(c cluster) {
	in.cluster.Set(c)
	in.common.Set(c.withoutBGPs())
}

// withoutBGPs leaves out what BGP alone is decided by: BGPFilters, labels of pods, and of
// Services whether they are served.
func (c cluster) withoutBGPs() cluster {
	c.Filters, c.pods, c.Services = nil, nil, slices.Clone(c.Services)
	for i := range c.Services {
		s := &c.Services[i]
		*s = model.Service{Namespace: s.Namespace, Name: s.Name, ClusterIPs: s.ClusterIPs, ExternalIPs: s.ExternalIPs, LoadBalancerIPs: s.LoadBalancerIPs}
	}
	return c
}

// gathered is what the inputs were when they were gathered. It is shared: none of
// it may be changed.
type gathered struct {
	// snapshot is the cluster as this node knows it: with the blocks as its
	// allocators have them, and with its pods if BGP asks for them. What the node
	// announces beside its blocks, floating addresses among it, is Borrowed. While
	// the API server cannot be reached after a start it is the one on disk.
	snapshot model.Snapshot
	cluster  cluster
	pods     podSet
	host     model.Host
	rib      rib
	config   *bgp.Config
	tunnels  felix.TunnelAddresses
	origin   originView

	// Closed once something is another that BGP, and that the data plane is decided by.
	ofBGP, ofDataplane []<-chan struct{}
}

// gather gives all inputs as they are, in one place for the loops and for who
// looks at them.
func (in *inputs) gather() (g gathered) {
	in.read()
	held, floating := get(&in.held, &g.ofBGP), get(&in.floating, &g.ofBGP)
	podCIDRs, saved := get(in.podCIDRs, &g.ofBGP), get(in.saved, &g.ofBGP)
	g.pods, g.host = get(in.pods, &g.ofBGP), get(&in.host, &g.ofBGP).Host
	g.ofDataplane = slices.Clone(g.ofBGP)
	g.rib, g.config = get(&in.rib, &g.ofDataplane), get(&in.config, &g.ofDataplane)
	g.tunnels, g.origin = get(&in.tunnels, &g.ofDataplane), get(in.origin, &g.ofDataplane)
	get(&in.common, &g.ofDataplane) // before cluster: what is newer of that it hears of by this
	g.cluster = get(&in.cluster, &g.ofBGP)
	if saved != nil {
		g.snapshot = ofPods(saved.Snapshot, in.node, g.pods.addresses())
		return g
	}
	g.snapshot = g.cluster.Snapshot
	g.snapshot.Blocks = slices.Concat(held.blocks, asBlocks(podCIDRs, in.node))
	if felix.ComputesRoutes(g.snapshot, in.node) {
		withOthers(&g.snapshot, in.node, g.cluster.blocks)
	}
	g.snapshot.Borrowed = slices.Concat(held.borrowed, floating)
	g.snapshot.Workloads = workloads(g.snapshot, g.pods.list, g.cluster.pods)
	return g
}

// get reads a cell, and adds how to learn of the next value.
func get[T any](c *task.Cell[T], news *[]<-chan struct{}) T {
	v, changed := c.Get()
	*news = append(*news, changed)
	return v
}

// lookups are the node's own next hops as far as BGP asks for them.
func (g gathered) lookups() bgp.FIB { return bgp.AsksOf(g.snapshot).FIB(g.host, g.pods.list) }

// peers is what the data plane has to know of BGP's peers: of those of the
// configuration, or of the first one that there will be.
func (g gathered) peers(node model.NodeName) (out peers) {
	config := g.config
	if config == nil {
		first, _ := bgp.DesiredOn(g.snapshot, node, g.lookups())
		config = &first
	}
	for _, p := range config.Peers {
		if p.ReachableBy.IsValid() {
			out.routes = append(out.routes, felix.PeerRoute{Peer: p.Address, Gateway: p.ReachableBy})
		}
		if zone := p.Address.Zone(); zone != "" {
			out.unnumbered = append(out.unnumbered, zone)
		}
		if p.IsPod() {
			out.pods = append(out.pods, felix.Speaker{Pod: p.Address, Node: p.LocalAddress})
		}
	}
	return out
}

// peers are how BGP peers are reached, in the words of the data plane.
type peers struct {
	routes     []felix.PeerRoute
	unnumbered []string        // links that they are reached by
	pods       []felix.Speaker // what these have in the kernel stays while the agent starts
}
