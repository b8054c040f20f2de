package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/muslin-net/muslin/cmd/muslinctl/check"
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/pkg/model"
)

// paths tells the story of a pod of each node and family from other nodes, most
// of them for each: the next ones in the order of names, so that every node asks
// about as often as every other.
func (e *explainer) paths(ctx context.Context, c check.Cluster, most int) ([]check.Path, error) {
	type question struct {
		asker model.NodeName
		facts explain.Facts
	}
	var all []question
	for i, owner := range c.Nodes {
		for _, ip := range e.targets(owner, c) {
			facts, err := e.common(ctx, ip)
			if err != nil {
				return nil, err
			}
			for k := 1; k < len(c.Nodes) && k <= most; k++ {
				all = append(all, question{c.Nodes[(i+k)%len(c.Nodes)], facts})
			}
		}
	}
	var done atomic.Int64
	paths := atOnce(all, func(q question) check.Path {
		w := check.Path{From: q.asker, To: q.facts.Pod.Node, Story: explain.Tell(e.from(ctx, q.facts, q.asker))}
		e.tell(fmt.Sprintf("%d of %d ways", done.Add(1), len(all)))
		return w
	})
	// What policy drops is meant to be dropped: nothing is wrong with the cluster.
	return slices.DeleteFunc(paths, func(w check.Path) bool { return w.Broken == explain.PolicyDenies }), nil
}

// targets are addresses of pods that a node runs, the lowest of each family.
func (e *explainer) targets(owner model.NodeName, c check.Cluster) []netip.Addr {
	v := c.Views[owner]
	if v == nil {
		return nil
	}
	lowest := map[model.Family]netip.Addr{}
	for _, p := range v.Endpoints {
		for _, a := range p.Addresses {
			known := lowest[model.FamilyOf(a)]
			if _, uses := e.survey.Pods[a]; uses && (!known.IsValid() || a.Less(known)) {
				lowest[model.FamilyOf(a)] = a
			}
		}
	}
	var out []netip.Addr
	for _, f := range model.Families {
		if a := lowest[f]; a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}
