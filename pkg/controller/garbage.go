package controller

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// memory is what is remembered from one survey to the next: since when
// something has looked like garbage, without a change.
type memory struct {
	handles map[string]sighting
	orphans map[string]time.Time // handles that no block knows
	blocks  map[netip.Prefix]blockSighting
}

type sighting struct {
	since time.Time
	leaks []leak
}

type blockSighting struct {
	since time.Time
	seq   uint64
}

// verdicts are what may be released now, each subject to a last look at the
// server. Order is that of names and prefixes.
type verdicts struct {
	handles [][]leak // all addresses of each
	orphans []string
	blocks  []seenBlock
}

// judge compares a survey with what earlier ones saw. An address goes when
// every address of its handle has been seen as leaked twice or more, over the
// grace, at the same sequence numbers; an orphan handle and an idle block when
// they were seen twice over the grace. names are all handles that exist; nil:
// they were not read this time. It is pure.
func judge(old memory, s *survey, w world, names []string, now time.Time, grace time.Duration) (memory, verdicts) {
	next := memory{handles: map[string]sighting{}, orphans: old.orphans, blocks: map[netip.Prefix]blockSighting{}}
	var out verdicts
	for _, id := range slices.Sorted(maps.Keys(s.handles)) {
		h := s.handles[id]
		if h.inUse || len(h.leaks) == 0 {
			continue
		}
		first, seen := old.handles[id]
		if !seen || !sameLeaks(first.leaks, h.leaks) {
			first = sighting{now, h.leaks}
			seen = false
		}
		next.handles[id] = first
		if seen && now.Sub(first.since) >= grace {
			out.handles = append(out.handles, h.leaks)
		}
	}
	if names != nil {
		next.orphans, out.orphans = judgeOrphans(old.orphans, s, names, now, grace)
	}
	for _, b := range idleBlocks(s, w) {
		first, seen := old.blocks[b.cidr]
		if !seen || first.seq != b.seq {
			first = blockSighting{now, b.seq}
			seen = false
		}
		next.blocks[b.cidr] = first
		pool := w.poolOf(b.cidr)
		if pool != nil && pool.Deleting || seen && now.Sub(first.since) >= grace {
			out.blocks = append(out.blocks, b)
		}
	}
	return next, out
}

func judgeOrphans(old map[string]time.Time, s *survey, names []string, now time.Time, grace time.Duration) (next map[string]time.Time, due []string) {
	next = map[string]time.Time{}
	for _, name := range slices.Sorted(slices.Values(names)) {
		if _, known := s.handles[name]; known {
			continue
		}
		first, seen := old[name]
		if !seen {
			first = now
		}
		next[name] = first
		if seen && now.Sub(first) >= grace {
			due = append(due, name)
		}
	}
	return next, due
}

func sameLeaks(a, b []leak) bool {
	return slices.EqualFunc(a, b, func(x, y leak) bool {
		return x.alloc.Addr == y.alloc.Addr && x.alloc.Sequence == y.alloc.Sequence
	})
}

// idleBlocks gives the blocks that their nodes can do without: nobody has an
// address in them, and they belong to nobody, or to no pool that selects the
// node, or the node has another block of the family. Blocks of nodes that do
// not exist, and of other owners than nodes, are not judged.
func idleBlocks(s *survey, w world) []seenBlock {
	type owner struct {
		node model.NodeName
		v4   bool
	}
	useful := map[owner]int{}
	var out, spare []seenBlock
	for _, b := range s.blocks {
		labels, lives := w.nodes[b.node]
		switch {
		case b.affinity == "":
			if b.idle {
				out = append(out, b)
			}
		case !lives:
		case !selects(w.poolOf(b.cidr), labels):
			if b.idle {
				out = append(out, b)
			}
		default:
			useful[owner{b.node, b.cidr.Addr().Is4()}]++
			if b.idle {
				spare = append(spare, b)
			}
		}
	}
	slices.SortFunc(spare, func(a, b seenBlock) int { return b.cidr.Addr().Compare(a.cidr.Addr()) })
	for _, b := range spare {
		of := owner{b.node, b.cidr.Addr().Is4()}
		if useful[of] > 1 {
			useful[of]--
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b seenBlock) int {
		return cmp.Or(a.cidr.Addr().Compare(b.cidr.Addr()), cmp.Compare(a.cidr.Bits(), b.cidr.Bits()))
	})
	return out
}

// selects reports whether a pool lets a node have blocks.
func selects(p *model.Pool, labels map[string]string) bool {
	return p != nil && !p.Deleting && (p.NodeSelector == nil || p.NodeSelector.Matches(labels))
}
