package app

import (
	"slices"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// asksForBlocks reports whether the blocks of all nodes have to be known.
func (a *agent) asksForBlocks(s model.Snapshot) bool {
	return asksForOrigin(s.BGP) || felix.ComputesRoutes(s, a.cfg.Node)
}

// withOthers adds to a node's own blocks, which its allocator knows best, those of
// the others as the API server tells them.
func withOthers(s *model.Snapshot, self model.NodeName, all kube.Blocks) {
	s.Blocks = slices.Grow(slices.Clip(s.Blocks), len(all.List))
	for _, b := range all.List {
		if b.Node != self {
			s.Blocks = append(s.Blocks, b)
		}
	}
	s.Lent, s.LentKnown = all.Lent, all.Listed
}

// ownOf are the blocks of a node.
func ownOf(blocks []model.Block, self model.NodeName) []model.Block {
	return slices.DeleteFunc(slices.Clone(blocks), func(b model.Block) bool { return b.Node != self })
}
