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

	cluster  task.Cell[cluster]               // feedAllocator, once the allocator knows it
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

	ofBGP []<-chan struct{} // closed once something is another that BGP is decided by
	all   []<-chan struct{} // closed once anything is another
}

// gather gives all inputs as they are, in one place for the loops and for who
// looks at them.
func (in *inputs) gather() (g gathered) {
	in.read()
	held, floating := get(&in.held, &g.ofBGP), get(&in.floating, &g.ofBGP)
	podCIDRs, saved := get(in.podCIDRs, &g.ofBGP), get(in.saved, &g.ofBGP)
	g.cluster, g.pods, g.host = get(&in.cluster, &g.ofBGP), get(in.pods, &g.ofBGP), get(&in.host, &g.ofBGP).Host
	g.all = slices.Clone(g.ofBGP)
	g.rib, g.config, g.tunnels, g.origin = get(&in.rib, &g.all), get(&in.config, &g.all), get(&in.tunnels, &g.all), get(in.origin, &g.all)
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
