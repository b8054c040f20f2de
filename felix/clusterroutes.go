package felix

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// The values of FelixConfiguration programClusterRoutes: for which pools the routes
// to other nodes' pods are computed from IPAM. The empty one is for all as long as
// there is nobody to speak BGP with, and for none otherwise.
const (
	ClusterRoutesEnabled  = "Enabled"
	ClusterRoutesIPIPOnly = "EnabledIPIPOnly"
	ClusterRoutesDisabled = "Disabled"
)

// ComputesRoutes reports whether a node computes routes from the blocks of all
// nodes, for which it has to know them. Of the snapshot only BGP, Felix, Peers and
// Pools are looked at.
func ComputesRoutes(s model.Snapshot, self model.NodeName) bool {
	mode, silent := settings(Input{Self: self, Snapshot: s}).ClusterRoutes, silent(s)
	return slices.ContainsFunc(s.Pools, func(p model.Pool) bool { return computedFor(p, mode, silent) })
}

// silent reports that no node has anybody to speak BGP with.
func silent(s model.Snapshot) bool {
	return len(s.Peers) == 0 && slices.ContainsFunc(s.BGP, func(b model.BGPConfiguration) bool {
		return b.Name == "default" && b.MeshEnabled != nil && !*b.MeshEnabled
	})
}

// computedFor is Calico's rule: what Felix has never left to BIRD, VXLAN, is
// computed whatever the mode where BGP cannot have it.
func computedFor(p model.Pool, mode string, silent bool) bool {
	switch mode {
	case ClusterRoutesEnabled:
		return true
	case ClusterRoutesIPIPOnly:
		return wants(p.IPIP) || silent && wants(p.VXLAN)
	case ClusterRoutesDisabled:
		return silent && wants(p.VXLAN)
	}
	return silent
}

// fromIPAM is the second source of routes, in the form of the first: each other
// node as the next hop of its blocks, of what it has borrowed, and of its podCIDRs
// that no pool gives addresses out of. Sorted, each prefix once.
func (c *builder) fromIPAM() []model.Learned {
	c.tellUnreached()
	if c.computes = ComputesRoutes(c.Snapshot, c.Self); !c.computes {
		return nil
	}
	f := &finder{c: c, nodes: make(map[model.NodeName]*found, len(c.Snapshot.Nodes)), silent: silent(c.Snapshot)}
	for _, n := range c.Snapshot.Nodes {
		f.nodes[n.Name] = &found{Node: n}
	}
	for i, p := range c.Snapshot.Pools {
		f.pools.add(p.CIDR, i)
	}
	for _, b := range c.Snapshot.Blocks {
		if b.State == model.BlockConfirmed { // as in bgp: what is pending is nobody's
			f.add(b.CIDR.Masked(), b.Node)
		}
	}
	for _, l := range c.Snapshot.Lent {
		f.add(hostPrefix(l.Addr), l.Node)
	}
	for _, n := range c.Snapshot.Nodes {
		for _, p := range n.PodCIDRs {
			if !slices.ContainsFunc(c.Snapshot.Pools, func(q model.Pool) bool { return !q.Disabled && q.CIDR.Overlaps(p) }) {
				f.add(p.Masked(), n.Name)
			}
		}
	}
	slices.SortStableFunc(f.out, compareLearned)
	return c.once(f.out)
}

// tellUnreached says of pools that neither source has routes for.
func (c *builder) tellUnreached() {
	if !silent(c.Snapshot) || len(c.Snapshot.Nodes) < 2 {
		return
	}
	for _, p := range c.Snapshot.Pools {
		if !p.Disabled && !p.LoadBalancerOnly() && !computedFor(p, c.config.ClusterRoutes, true) {
			c.problem(model.Ref{Kind: "FelixConfiguration", Name: cmp.Or(c.config.Name, "default")}, "spec.programClusterRoutes", "NoClusterRoutes",
				"the mesh is off, there is no BGPPeer, and "+c.config.ClusterRoutes+" leaves out IPPool "+p.Name+": no node has a route to its pods on others; set Enabled, or speak BGP")
			return
		}
	}
}

// finder gathers what IPAM says of other nodes.
type finder struct {
	c      *builder
	nodes  map[model.NodeName]*found
	pools  prefixSet // index into Snapshot.Pools
	silent bool
	out    []model.Learned
}

// found is a node, and the ways to it that its prefixes share.
type found struct {
	model.Node
	v4, v6 *model.Multipath
}

func (f *finder) add(p netip.Prefix, name model.NodeName) {
	n := f.nodes[name]
	if n == nil || name == f.c.Self {
		return // of no node, or of one that is gone
	}
	_, i, ok := f.pools.covering(p)
	if !ok || !computedFor(f.c.Snapshot.Pools[i], f.c.config.ClusterRoutes, f.silent) {
		return
	}
	family := model.FamilyOf(p.Addr())
	address, group := n.Address(family), model.OfFamily(family, &n.v4, &n.v6)
	if !address.IsValid() {
		f.c.problem(model.Ref{Kind: "Node", Name: string(name)}, "status.addresses", "NoAddressOfFamily",
			"node "+string(name)+" has no "+family.String()+" address, by which its prefix "+p.String()+" and others would be reached")
		return
	}
	if *group == nil {
		*group = &model.Multipath{NextHops: []netip.Addr{address}, IPAM: true}
	}
	f.out = append(f.out, model.Learned{Prefix: p, Multipath: *group})
}

// once leaves each prefix to the first that has it, by the order of blocks and
// nodes, and says who else does.
func (c *builder) once(sorted []model.Learned) []model.Learned {
	out := sorted[:0]
	for _, l := range sorted {
		if n := len(out); n == 0 || out[n-1].Prefix != l.Prefix {
			out = append(out, l)
		} else if first := out[n-1]; first.Multipath != l.Multipath {
			c.problem(routeRef(l.Prefix), "", "BlockOfTwoNodes", "IPAM says that both node "+string(c.nodes[first.NextHops[0]].Name)+
				" and node "+string(c.nodes[l.NextHops[0]].Name)+" have the prefix; the route leads to the first: see muslinctl ipam check")
		}
	}
	return out
}

// offLink says of a node that is on no link of this one why no route leads to its
// pods: nothing between the two is known to know their addresses, but for who
// speaks BGP. Their packets are left to routes that are less specific.
func (r *resolver) offLink(l *model.Learned, nh netip.Addr) {
	_, i, ok := r.pools.covering(l.Prefix)
	if _, _, covered := r.received().covering(l.Prefix); !ok || covered {
		return
	}
	pool, name := r.c.Snapshot.Pools[i], string(r.c.nodes[nh].Name)
	if wants(pool.VXLAN) || wants(pool.IPIP) {
		r.tell(nh, model.Ref{Kind: "Node", Name: name}, "metadata.annotations", "NoTunnel",
			"node "+name+" is on no link of this one, and one of the two has no address for the tunnel yet, or no device; no route leads to its pods")
		return
	}
	r.tell(pool.CIDR.Addr(), model.Ref{Kind: "IPPool", Name: pool.Name}, "spec.vxlanMode", "NodeNotOnLink",
		"node "+name+", and there may be more, is on no link of this one, and the pool has no tunnel; packets for its pods follow whatever other route there is: set vxlanMode or ipipMode to CrossSubnet, or speak BGP with the router between")
}

// tell makes one problem stand for all of about.
func (r *resolver) tell(about netip.Addr, object model.Ref, field, reason, message string) {
	if !r.complained[about] {
		r.complained[about] = true
		r.c.problem(object, field, reason, message)
	}
}

// received are the prefixes that BGP has learned, the default route too.
func (r *resolver) received() *prefixSet {
	if r.bgp == nil {
		r.bgp = &prefixSet{}
		for i, l := range r.c.Learned {
			r.bgp.add(l.Prefix, i)
		}
	}
	return r.bgp
}

// joined merges two sorted lists; of the same prefix what BGP learned comes first.
func joined(learned, computed []model.Learned) []model.Learned {
	if len(computed) == 0 {
		return learned
	}
	out := make([]model.Learned, 0, len(learned)+len(computed))
	for _, l := range learned {
		for len(computed) > 0 && compareLearned(computed[0], l) < 0 {
			out, computed = append(out, computed[0]), computed[1:]
		}
		out = append(out, l)
	}
	return append(out, computed...)
}
