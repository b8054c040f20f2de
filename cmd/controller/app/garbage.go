package app

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// settle is how long what a deleted node held is kept after the last pod that
// may have it has left the API. A kubelet that still runs there ends the
// containers of deleted pods within their grace, 30 seconds by default; one that
// does not hear of it, and pods that nobody ends, are what the bound is for.
const settle = time.Minute

// waits says how long something has to look like garbage before it goes.
type waits struct {
	leak   time.Duration // what is left behind on a node that lives
	settle time.Duration // what a deleted node held
	// again is for a block that a deleted node has claimed since others were
	// taken from it: its agent runs on, and would only claim the next one.
	again time.Duration
}

// memory is what is remembered from one survey to the next: since when
// something has looked like garbage, without a change.
type memory struct {
	handles map[string]sighting
	orphans map[string]time.Time // handles that no block knows
	blocks  map[ipam.AffinityKey]blockSighting
	freed   map[model.NodeName]time.Time // when a deleted node last lost a block
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
	settles bool // something of a deleted node waits
}

// evaluate compares a survey with what earlier ones saw. An address goes when
// every address of its handle has been seen as garbage twice or more, over the
// longest wait of them, at the same sequence numbers; at the first sight if it
// is awaited. An orphan handle and an idle block go when they were seen twice
// over the wait, blocks of deleted nodes last. names are all handles that exist;
// nil: they were not read this time. It is pure.
func evaluate(old memory, s *survey, w world, names []string, now time.Time, wait waits) (memory, verdicts) {
	next := memory{
		handles: map[string]sighting{}, orphans: old.orphans,
		blocks: map[ipam.AffinityKey]blockSighting{}, freed: map[model.NodeName]time.Time{},
	}
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
		if d := patience(h.leaks, wait); d == 0 || seen && now.Sub(first.since) >= d {
			out.handles = append(out.handles, h.leaks)
		}
		out.settles = out.settles || h.leaks[0].fate == left
	}
	if names != nil {
		next.orphans, out.orphans = evaluateOrphans(old.orphans, s, names, now, wait.leak)
	}
	out.blocks = next.evaluateBlocks(old, s, w, now, wait)
	gone, settles := next.evaluateLeft(old, s, w, now, wait)
	out.blocks, out.settles = append(out.blocks, gone...), out.settles || settles
	return next, out
}

// evaluateBlocks gives the idle blocks that go, and remembers the others.
func (m memory) evaluateBlocks(old memory, s *survey, w world, now time.Time, wait waits) (due []seenBlock) {
	for _, b := range idleBlocks(s, w) {
		since, seen := m.sight(old, b, now, false)
		pool := w.poolOf(b.cidr)
		if pool != nil && pool.Deleting || seen && now.Sub(since) >= wait.leak {
			due = append(due, b)
		}
	}
	return due
}

// evaluateLeft gives the blocks of deleted nodes that go, and remembers the others.
func (m memory) evaluateLeft(old memory, s *survey, w world, now time.Time, wait waits) (due []seenBlock, settles bool) {
	for node, t := range old.freed {
		if w.missing(node) && now.Sub(t) < wait.again {
			m.freed[node] = t
		}
	}
	for _, b := range leftBlocks(s, w) {
		since, seen := m.sight(old, b, now, true)
		d := wait.settle
		if t, freed := old.freed[b.node]; freed {
			if m.freed[b.node] = t; since.After(t) {
				d = wait.again
			}
		}
		if seen && now.Sub(since) >= d && s.owners[b.node] == 0 {
			due = append(due, b)
		}
		settles = settles || d == wait.settle
	}
	return due, settles
}

// patience is the longest wait of a handle's addresses; none when one of them
// is awaited, for the others were the same pod's.
func patience(leaks []leak, wait waits) time.Duration {
	longest := time.Duration(0)
	for _, l := range leaks {
		switch l.fate {
		case awaited:
			return 0
		case left:
			longest = max(longest, wait.settle)
		default:
			longest = max(longest, wait.leak)
		}
	}
	return longest
}

// sight remembers a block, as first seen when an earlier survey saw it at the
// same sequence number (any: at whatever one).
func (m memory) sight(old memory, b seenBlock, now time.Time, any bool) (since time.Time, seen bool) {
	key := ipam.AffinityKey{Node: b.node, CIDR: b.cidr}
	first, seen := old.blocks[key]
	if !seen || !any && first.seq != b.seq {
		first, seen = blockSighting{now, b.seq}, false
	}
	m.blocks[key] = first
	return first.since, seen
}

func evaluateOrphans(old map[string]time.Time, s *survey, names []string, now time.Time, grace time.Duration) (next map[string]time.Time, due []string) {
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
// node, or something else uses a part of them, or the node has another block of
// the family. Blocks of nodes that do
// not exist, and of other owners than nodes, are not judged.
func idleBlocks(s *survey, w world) []seenBlock {
	type owner struct {
		node   model.NodeName
		family model.Family
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
		case !selects(w.poolOf(b.cidr), labels), usedByOthers(w.poolOf(b.cidr), b.cidr):
			if b.idle {
				out = append(out, b)
			}
		default:
			useful[owner{b.node, model.FamilyOf(b.cidr.Addr())}]++
			if b.idle {
				spare = append(spare, b)
			}
		}
	}
	slices.SortFunc(spare, func(a, b seenBlock) int { return b.cidr.Addr().Compare(a.cidr.Addr()) })
	for _, b := range spare {
		of := owner{b.node, model.FamilyOf(b.cidr.Addr())}
		if useful[of] > 1 {
			useful[of]--
			out = append(out, b)
		}
	}
	slices.SortFunc(out, byPrefix)
	return out
}

// took notes that a block was released: should it be there again, it is another.
func (m memory) took(b seenBlock, gone bool, now time.Time) {
	delete(m.blocks, ipam.AffinityKey{Node: b.node, CIDR: b.cidr})
	if gone {
		m.freed[b.node] = now
	}
}

// leftBlocks gives the blocks and affinities of nodes that do not exist any
// more, once nothing that they held is kept and no pod is bound to them.
func leftBlocks(s *survey, w world) []seenBlock {
	var out []seenBlock
	exists := map[ipam.AffinityKey]bool{}
	add := func(b seenBlock) {
		if w.missing(b.node) && s.keeps[b.node] == 0 && !w.bound(b.node) {
			out = append(out, b)
		}
	}
	for _, b := range s.blocks {
		exists[ipam.AffinityKey{Node: b.node, CIDR: b.cidr}] = true
		add(b)
	}
	for _, c := range w.claims {
		if !exists[ipam.AffinityKey{Node: c.Node, CIDR: c.CIDR}] {
			add(seenBlock{cidr: c.CIDR, node: c.Node, idle: true, claim: true})
		}
	}
	slices.SortFunc(out, byPrefix)
	return out
}

func byPrefix(a, b seenBlock) int {
	return cmp.Or(a.cidr.Compare(b.cidr), cmp.Compare(a.node, b.node))
}

// selects reports whether a pool lets a node have blocks.
func selects(p *model.Pool, labels map[string]string) bool {
	return p != nil && !p.Deleting && (p.NodeSelector == nil || p.NodeSelector.Matches(labels))
}

// usedByOthers reports whether something else than pods uses an address of the
// block: its owner would drop what is sent there.
func usedByOthers(p *model.Pool, block netip.Prefix) bool {
	return slices.ContainsFunc(p.Excluded, block.Overlaps)
}
