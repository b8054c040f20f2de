package kube

import "github.com/muslin-net/muslin/pkg/model"

// allBlocks are the BlockAffinities of every node, watched only while somebody
// asks for them: the route origin check does. Its fields are guarded by the
// cluster's mu.
type allBlocks struct {
	*demand
	table   *table[model.Block]
	failing bool // the last request to the server failed
}

func (b *allBlocks) init(c *Cluster, while func([]model.BGPConfiguration) bool) {
	b.demand = newDemand(c, func() bool { return while(c.bgp.values()) })
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
	b.sources = []source{s}
	b.clear = func() {
		b.failing = false
		b.table.clear()
	}
}

// Blocks are the blocks of all nodes as they were last heard of.
type Blocks struct {
	List   []model.Block // sorted by prefix
	Listed bool          // the server has named them all at least once
	Stale  bool          // the server cannot be reached at present: there may be newer ones
}

// AllBlocks gives the blocks of all nodes, while Options.AllBlocksWhile asks
// for them.
func (c *Cluster) AllBlocks() Blocks {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all.demand == nil || !c.all.known() {
		return Blocks{}
	}
	return Blocks{List: sortedBlocks(c.all.table.values()), Listed: true, Stale: c.all.failing}
}
