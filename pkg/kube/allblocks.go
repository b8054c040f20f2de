package kube

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// allBlocks are the BlockAffinities of every node, and of the blocks what other
// nodes than their owners have out of them, watched only while somebody asks for
// them: routes that are computed do, and the route origin check. Its fields are
// guarded by the cluster's mu.
type allBlocks struct {
	*demand
	last    *Blocks // nil: has to be put together
	table   *table[model.Block]
	lent    *table[lentBlock]
	failing bool // the last request to the server failed
}

func (b *allBlocks) init(c *Cluster, while func(model.Snapshot) bool) {
	b.demand = newDemand(c, func() bool {
		return while(model.Snapshot{BGP: c.bgp.values(), Felix: c.felix.values(), Peers: c.peers.values(), Pools: c.pools.values()})
	})
	f := c.kind("BlockAffinity")
	f.answer = func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if failing := err != nil; failing != b.failing {
			b.failing = failing
			c.noteChange()
		}
	}
	var s source
	b.table, s = newTable(c, f, stripObject, readAffinity)
	var l source
	b.lent, l = newTable(c, c.kind("IPAMBlock"), stripBlock, readLent)
	b.sources = []source{s, l}
	b.clear = func() {
		b.failing = false
		b.table.clear()
		b.lent.clear()
	}
}

// lentBlock is what is kept of an IPAMBlock's spec.
type lentBlock struct {
	CIDR     string        `json:"cidr"`
	Affinity string        `json:"affinity,omitempty"`
	Deleted  bool          `json:"deleted,omitempty"`
	Lent     []model.Lease `json:"lent,omitempty"`
}

// stripBlock leaves of a block which one it is, whose, and which of its addresses
// other nodes have: they are few, and what changes with each pod goes.
func stripBlock(obj any) (any, error) {
	o, ok := obj.(*object)
	if !ok {
		return obj, nil
	}
	var spec struct {
		lentBlock
		Allocations []*int `json:"allocations"`
		Attributes  []struct {
			Secondary map[string]string `json:"secondary"`
		} `json:"attributes"`
	}
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return stripObject(o) // it is reported when it is read
	}
	cidr, _ := netip.ParsePrefix(spec.CIDR)
	a := cidr.Masked().Addr()
	for _, slot := range spec.Allocations {
		if slot != nil && *slot >= 0 && *slot < len(spec.Attributes) {
			node := spec.Attributes[*slot].Secondary["node"]
			if node != "" && "host:"+node != spec.Affinity {
				spec.Lent = append(spec.Lent, model.Lease{Addr: a, Node: model.NodeName(node)})
			}
		}
		a = a.Next()
	}
	var err error
	if o.Spec, err = json.Marshal(spec.lentBlock); err != nil {
		return nil, fmt.Errorf("strip %s: %w", o.Name, err)
	}
	o.Generation = 0 // it grows with each pod, and is no news
	return stripObject(o)
}

// readLent translates an IPAMBlock as stripBlock leaves it.
func readLent(obj any) reading[lentBlock] {
	o := obj.(*object)
	r := newReader("IPAMBlock", &o.ObjectMeta)
	var spec lentBlock
	r.spec(o, &spec)
	r.prefix("spec.cidr", spec.CIDR)
	return finish(r, spec)
}

// unowned is a block that has no affinity.
func (b lentBlock) unowned() model.Block {
	cidr, _ := netip.ParsePrefix(b.CIDR) // readLent has
	out := model.Block{CIDR: cidr.Masked(), State: model.BlockConfirmed}
	if b.Deleted {
		out.State = model.BlockPendingDeletion
	}
	return out
}

// Blocks are the blocks of all nodes as they were last heard of.
type Blocks struct {
	List   []model.Block // sorted by prefix
	Lent   []model.Lease // addresses of blocks that other nodes than the block's have
	Listed bool          // the server has named them all at least once
	Stale  bool          // the server cannot be reached at present: there may be newer ones
}

// AllBlocks gives the blocks of all nodes, while Options.AllBlocksWhile asks
// for them. They are shared: nobody may change them.
func (c *Cluster) AllBlocks() Blocks {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all.demand == nil || !c.all.known() {
		return Blocks{}
	}
	if c.all.last != nil {
		return *c.all.last
	}
	list, lent := slices.Clone(c.all.table.values()), []model.Lease(nil)
	for _, b := range c.all.lent.values() {
		lent = append(lent, b.Lent...)
		if b.Affinity == "" {
			list = append(list, b.unowned())
		}
	}
	c.all.last = &Blocks{List: sortedBlocks(list), Lent: lent, Listed: true, Stale: c.all.failing}
	return *c.all.last
}
