package app

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// requestedFrom gives the blocks that a node claims while another one has them, sorted:
// the claim is pending beside that other's. It is pure.
func requestedFrom(blocks []model.Block) []ipam.AffinityKey {
	has := map[netip.Prefix]bool{}
	for _, b := range blocks {
		if b.State != model.BlockPending {
			has[b.CIDR] = true
		}
	}
	var out []ipam.AffinityKey
	for _, b := range blocks {
		if b.State == model.BlockPending && b.Node != "" && has[b.CIDR] {
			out = append(out, ipam.AffinityKey{Node: b.Node, CIDR: b.CIDR})
		}
	}
	slices.SortFunc(out, func(a, b ipam.AffinityKey) int { return cmp.Or(a.CIDR.Compare(b.CIDR), cmp.Compare(a.Node, b.Node)) })
	return slices.CompactFunc(out, func(a, b ipam.AffinityKey) bool { return a.CIDR == b.CIDR }) // one claimant is enough
}

// vacate takes empty blocks from the nodes that have them for those that ask.
func (c *Controller) vacate(ctx context.Context) (again time.Duration, err error) {
	s := c.Cluster.Snapshot()
	if s.IPAM.Locked {
		return lookAgain, nil
	}
	var errs []error
	for _, k := range requestedFrom(s.Blocks) {
		err := alloc.Vacate(ctx, c.Store, k.Node, k.CIDR)
		switch {
		case err == nil:
			c.Logger.Info("empty block taken from its node for another", "block", k.CIDR.String(), "for", k.Node)
		case errors.Is(err, alloc.ErrNotEmpty), errors.Is(err, ipam.ErrConflict): // it is in use again
		default:
			errs = append(errs, err)
		}
	}
	return lookAgain, errors.Join(errs...)
}
