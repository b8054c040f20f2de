package controller

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// goneFor is how long a node has to be missing before what it held is
	// freed: a node that is deleted and made again in one breath keeps it.
	goneFor = 3 * time.Second
	// casTries bounds the attempts to write an object that others write too.
	casTries = 10
)

var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// gone frees the addresses and blocks of nodes that do not exist any more. The
// cluster has declared a deleted node's pods dead, and deletes them itself.
//
// The order survives a crash at any point: handles, then addresses, then
// blocks, and last the affinities, by which a later pass finds its way back.
type gone struct {
	store  ipam.Store
	exists func(context.Context, model.NodeName) (bool, error) // asks the server
	now    func() time.Time
	since  map[model.NodeName]time.Time // when a node was first found missing

	// borrowers are the nodes that have addresses in any block, of the last
	// survey: one that has no block of its own is found by nothing else.
	borrowers []model.NodeName
}

// freed is what one node gave back.
type freed struct{ addresses, handles, blocks int }

// missing gives the nodes that have block affinities, or are in also, and do
// not exist, sorted.
func missing(s model.Snapshot, also []model.NodeName) []model.NodeName {
	exists := make(map[model.NodeName]bool, len(s.Nodes))
	for i := range s.Nodes {
		exists[s.Nodes[i].Name] = true
	}
	var out []model.NodeName
	for _, b := range s.Blocks {
		if b.Node != "" && !exists[b.Node] {
			out = append(out, b.Node)
		}
	}
	for _, n := range also {
		if n != "" && !exists[n] {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// due gives the nodes that have been missing for long enough, and whether
// others have to be looked at again.
func (g *gone) due(s model.Snapshot) (due []model.NodeName, more bool) {
	names := missing(s, g.borrowers)
	since := make(map[model.NodeName]time.Time, len(names))
	for _, n := range names {
		first, ok := g.since[n]
		if !ok {
			first = g.now()
		}
		since[n] = first
		if g.now().Sub(first) >= goneFor {
			due = append(due, n)
		} else {
			more = true
		}
	}
	g.since = since
	return due, more
}

func (g *gone) each(ctx context.Context, visit func(*ipam.Block)) error {
	for _, within := range everywhere {
		err := g.store.EachBlock(ctx, within, func(b *ipam.Block, _ ipam.Revision) bool {
			visit(b)
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// free gives back what a node held. It does nothing when the server has the node.
func (g *gone) free(ctx context.Context, node model.NodeName, s model.Snapshot) (freed, error) {
	var out freed
	if there, err := g.exists(ctx, node); err != nil || there {
		return out, err
	}
	owned, err := g.survey(ctx, node)
	if err != nil {
		return out, fmt.Errorf("free node %s: %w", node, err)
	}
	var errs []error
	for _, id := range owned.handles {
		err := g.dropHandle(ctx, id)
		if err == nil {
			out.handles++
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("free node %s: %w", node, err)
	}
	cooldown := time.Duration(s.IPAM.CooldownSeconds) * time.Second
	for _, cidr := range owned.blocks {
		n, err := g.release(ctx, node, cidr, owned.shared, cooldown)
		out.addresses += n
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("free node %s: %w", node, err)
	}
	if there, err := g.exists(ctx, node); err != nil || there {
		return out, err // it came back: its agent keeps the blocks
	}
	for _, b := range s.Blocks {
		if b.Node == node {
			err := g.dropBlock(ctx, ipam.AffinityKey{Node: node, CIDR: b.CIDR})
			if err == nil {
				out.blocks++
			}
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return out, fmt.Errorf("free node %s: %w", node, err)
	}
	g.borrowers = slices.DeleteFunc(g.borrowers, func(n model.NodeName) bool { return n == node })
	return out, nil
}

// holdings are what blocks say of a node.
type holdings struct {
	blocks  []netip.Prefix  // that have addresses of the node
	handles []string        // all of whose addresses are the node's
	shared  map[string]bool // handles that have addresses of other nodes too: they are left alone
}

func (g *gone) survey(ctx context.Context, node model.NodeName) (holdings, error) {
	h := holdings{shared: map[string]bool{}}
	mine, others := map[string]bool{}, map[string]bool{}
	err := g.each(ctx, func(b *ipam.Block) {
		holds := false
		for a := range b.Allocations() {
			if a.Owner["node"] == string(node) {
				holds = true
				mine[a.Handle] = true
			} else {
				others[a.Handle] = true
			}
		}
		if holds {
			h.blocks = append(h.blocks, b.CIDR())
		}
	})
	if err != nil {
		return h, err
	}
	for id := range mine {
		switch {
		case id == "": // an address without a handle is freed by its node alone
		case others[id]:
			h.shared[id] = true
		default:
			h.handles = append(h.handles, id)
		}
	}
	slices.Sort(h.handles)
	return h, nil
}

func (g *gone) dropHandle(ctx context.Context, id string) error {
	return retry(ctx, func() error {
		h, at, err := g.store.Handles().Get(ctx, id)
		if err != nil {
			return absentIsFine(err)
		}
		return absentIsFine(g.store.Handles().Delete(ctx, h, at))
	})
}

// release frees the node's addresses in a block. Those in its own blocks rest
// for no cooldown: the block goes, and what is made in its place knows of none.
func (g *gone) release(ctx context.Context, node model.NodeName, cidr netip.Prefix, shared map[string]bool, cooldown time.Duration) (int, error) {
	released := 0
	err := retry(ctx, func() error {
		b, at, err := g.store.Blocks().Get(ctx, cidr)
		if err != nil {
			return absentIsFine(err)
		}
		var list []ipam.Release
		for a := range b.Allocations() {
			if a.Owner["node"] == string(node) && !shared[a.Handle] {
				list = append(list, ipam.Release{Addr: a.Addr, Handle: a.Handle, Sequence: &a.Sequence})
			}
		}
		if len(list) == 0 {
			return nil
		}
		rest := cooldown
		if b.Node() == node {
			rest = 0
		}
		if _, err := b.Release(list, g.now(), rest); err != nil {
			return err
		}
		b.Bump()
		if _, err = g.store.Blocks().Update(ctx, b, at); err == nil {
			released = len(list)
		}
		return err
	})
	return released, err
}

// dropBlock takes a block from a node: the affinity is marked, the block is
// deleted, or kept without affinity while others have addresses in it, and then
// the affinity goes.
func (g *gone) dropBlock(ctx context.Context, key ipam.AffinityKey) error {
	return retry(ctx, func() error {
		a, at, err := g.store.Affinities().Get(ctx, key)
		if err != nil {
			return absentIsFine(err)
		}
		if a.State != model.BlockPendingDeletion {
			a.State = model.BlockPendingDeletion
			if at, err = g.store.Affinities().Update(ctx, a, at); err != nil {
				return err
			}
		}
		if err := g.disown(ctx, key); err != nil {
			return err
		}
		return absentIsFine(g.store.Affinities().Delete(ctx, a, at))
	})
}

func (g *gone) disown(ctx context.Context, key ipam.AffinityKey) error {
	b, at, err := g.store.Blocks().Get(ctx, key.CIDR)
	if err != nil {
		return absentIsFine(err)
	}
	if b.Node() != key.Node {
		return nil
	}
	if b.Empty() {
		return absentIsFine(g.store.Blocks().Delete(ctx, b, at))
	}
	b.SetAffinity("", g.now())
	b.Bump()
	_, err = g.store.Blocks().Update(ctx, b, at)
	return err
}

// retry repeats f while others write the same object.
func retry(ctx context.Context, f func() error) error {
	var err error
	for range casTries {
		if err = f(); !errors.Is(err, ipam.ErrConflict) || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func absentIsFine(err error) error {
	if errors.Is(err, ipam.ErrNotFound) {
		return nil
	}
	return err
}
