package kube

import (
	"encoding/json"
	"fmt"

	"github.com/muslin-net/muslin/pkg/model"
	"k8s.io/apimachinery/pkg/fields"
)

// allBlocks are the BlockAffinities of every node, and the blocks that have none,
// watched only while somebody asks for them: the route origin check does. Its
// fields are guarded by the cluster's mu.
type allBlocks struct {
	*demand
	table   *table[model.Block]
	unowned *table[model.Block] // in use by addresses alone, each a node's own (borrowed)
	failing bool                // the last request to the server failed
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
	free := c.kind("IPAMBlock")
	free.fields = fields.OneTermEqualSelector("spec.affinity", "").String()
	var u source
	b.unowned, u = newTable(c, free, stripBlock, readUnownedBlock)
	b.sources = []source{s, u}
	b.clear = func() {
		b.failing = false
		b.table.clear()
		b.unowned.clear()
	}
}

// blockIdentity is the part of an IPAMBlock's spec that is kept.
type blockIdentity struct {
	CIDR    string `json:"cidr"`
	Deleted bool   `json:"deleted,omitempty"`
}

// stripBlock leaves of a block only what says which one it is.
func stripBlock(obj any) (any, error) {
	o, ok := obj.(*object)
	if !ok {
		return obj, nil
	}
	var spec blockIdentity
	if err := json.Unmarshal(o.Spec, &spec); err == nil { // one that is not readable is reported when it is read
		if o.Spec, err = json.Marshal(spec); err != nil {
			return nil, fmt.Errorf("strip %s: %w", o.Name, err)
		}
	}
	return stripObject(o)
}

// readUnownedBlock translates an IPAMBlock without affinity. One that is being
// deleted counts as absent.
func readUnownedBlock(obj any) reading[model.Block] {
	o := obj.(*object)
	r := newReader("IPAMBlock", &o.ObjectMeta)
	var spec blockIdentity
	r.spec(o, &spec)
	out := model.Block{CIDR: r.prefix("spec.cidr", spec.CIDR), State: model.BlockConfirmed}
	if spec.Deleted {
		out.State = model.BlockPendingDeletion
	}
	return finish(r, out)
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
	list := append(c.all.table.values(), c.all.unowned.values()...)
	return Blocks{List: sortedBlocks(list), Listed: true, Stale: c.all.failing}
}
