package app

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// world is what allocations are judged against.
type world struct {
	nodes  map[model.NodeName]map[string]string // labels
	pools  []model.Pool
	claims []model.Block // affinities
	pod    func(namespace, name string) (podFacts, bool)
	taken  func(netip.Addr) bool     // a pod that has not finished has the address
	bound  func(model.NodeName) bool // such a pod, which may have an address, is bound to the node
}

func newWorld(s model.Snapshot, pods *podIndex) world {
	w := world{
		nodes: make(map[model.NodeName]map[string]string, len(s.Nodes)), pools: s.Pools, claims: s.Blocks,
		pod: pods.get, taken: pods.has, bound: pods.on,
	}
	for i := range s.Nodes {
		w.nodes[s.Nodes[i].Name] = s.Nodes[i].Labels
	}
	return w
}

// missing reports whether a node is named and does not exist.
func (w world) missing(n model.NodeName) bool {
	_, lives := w.nodes[n]
	return n != "" && !lives
}

// poolOf is the pool a block was made from, nil when there is none any more. A
// pool that stays comes before one that is being deleted.
func (w world) poolOf(cidr netip.Prefix) *model.Pool {
	var found *model.Pool
	for i := range w.pools {
		p := &w.pools[i]
		if p.CIDR.Bits() <= cidr.Bits() && p.CIDR.Contains(cidr.Addr()) && (found == nil || found.Deleting) {
			found = p
		}
	}
	return found
}

// fate is what becomes of an address that is assigned.
type fate int

const (
	kept    fate = iota // somebody has it, or may yet come to have it
	leaked              // its node lives, nobody has it: it goes after the grace
	left                // its node does not exist any more and nobody has it: it goes after settle
	awaited             // nobody has it, and the pod of its owner's name asks for it elsewhere: it goes at once
)

// fateOf judges an address. What a pod that has not finished has by its status,
// on whatever node, is kept whoever the owner on paper is; so is what the owner
// may yet come to have. Without a pod as owner (a tunnel, a load balancer) it is
// the node's own business: kept while the node exists, and after that for as
// long as pods are bound to it. An address without a handle can be told from a
// later one by nothing, so that it goes with its node alone.
func (w world) fateOf(a ipam.Allocation) fate {
	node := model.NodeName(a.Owner["node"])
	gone := w.missing(node)
	pod := a.Owner["pod"] != "" && a.Owner["namespace"] != ""
	switch {
	case w.taken(a.Addr) || w.mayHave(a.Owner, a.Addr) || w.mayHave(a.Alternate, a.Addr):
		return kept
	case !gone && (!pod || a.Handle == ""), gone && !pod && w.bound(node):
		return kept
	case pod && a.Handle != "" && w.asksElsewhere(a.Owner, a.Addr):
		return awaited
	case gone:
		return left
	}
	return leaked
}

// mayHave reports whether the pod that an address was given to has it, or has
// no address yet: its status lags behind.
func (w world) mayHave(owner map[string]string, addr netip.Addr) bool {
	if owner["pod"] == "" {
		return false
	}
	p, ok := w.pod(owner["namespace"], owner["pod"])
	if !ok || p.finished || p.host {
		return false
	}
	if n := owner["node"]; n != "" && p.node != "" && p.node != n {
		return false
	}
	return len(p.ips) == 0 || slices.Contains(p.ips, addr)
}

// asksElsewhere reports whether the pod of the owner's name is another one by
// now, on another node, and asks for the same address. There is one pod of a
// name, so that the one before is dead, or its deletion was forced by somebody
// who vouches for that.
func (w world) asksElsewhere(owner map[string]string, addr netip.Addr) bool {
	p, ok := w.pod(owner["namespace"], owner["pod"])
	return ok && !p.finished && !p.host && p.node != "" && owner["node"] != "" && p.node != owner["node"] && slices.Contains(p.asks, addr)
}

// survey is what one reading of every block gives.
type survey struct {
	handles map[string]held // by handleKey
	blocks  []seenBlock
	usage   map[place]usage
	owners  map[model.NodeName]int // addresses of the node, wherever they are
	keeps   map[model.NodeName]int // of them those that are kept
}

// held is what is known of one handle.
type held struct {
	inUse bool   // at least one of its addresses is
	leaks []leak // the others
}

// leak is an address that seems to have lost its owner.
type leak struct {
	cidr  netip.Prefix // of its block
	alloc ipam.Allocation
	fate  fate // not kept
}

// seenBlock is a block as it was found.
type seenBlock struct {
	cidr     netip.Prefix
	affinity string
	node     model.NodeName
	seq      uint64
	idle     bool // nobody has an address in it
	cooling  bool // idle, but addresses still cool down
	claim    bool // there is no such block, only an affinity
}

// place is what metrics are counted by.
type place struct {
	pool string
	node model.NodeName
}

type usage struct{ inUse, borrowed, blocks, candidates int }

func (u usage) plus(v usage) usage {
	return usage{u.inUse + v.inUse, u.borrowed + v.borrowed, u.blocks + v.blocks, u.candidates + v.candidates}
}

func newSurvey() *survey {
	return &survey{handles: map[string]held{}, usage: map[place]usage{}, owners: map[model.NodeName]int{}, keeps: map[model.NodeName]int{}}
}

// noPool is the label of blocks outside every pool, as Calico has it.
const noPool = "no_ippool"

// add takes a block into the survey.
func (s *survey) add(b *ipam.Block, w world) {
	pool := noPool
	if p := w.poolOf(b.CIDR()); p != nil {
		pool = p.Name
	}
	s.count(place{pool, b.Node()}, usage{blocks: 1})
	used := 0
	for a := range b.Allocations() {
		used++
		node := model.NodeName(a.Owner["node"])
		s.owners[node]++
		u := usage{inUse: 1}
		if node != b.Node() {
			u.borrowed = 1
		}
		h := s.handles[handleKey(a)]
		if f := w.fateOf(a); f == kept {
			h.inUse = true
			s.keeps[node]++
		} else {
			u.candidates = 1
			h.leaks = append(h.leaks, leak{b.CIDR(), a, f})
		}
		s.handles[handleKey(a)] = h
		s.count(place{pool, node}, u)
	}
	s.blocks = append(s.blocks, seenBlock{
		cidr: b.CIDR(), affinity: b.Affinity(), node: b.Node(), seq: b.Sequence(), idle: used == 0, cooling: used == 0 && !b.Empty(),
	})
}

func (s *survey) count(at place, u usage) {
	s.usage[at] = s.usage[at].plus(u)
}

// unowned gives the blocks that are affine to nobody.
func (s *survey) unowned() []netip.Prefix {
	var out []netip.Prefix
	for _, b := range s.blocks {
		if b.affinity == "" {
			out = append(out, b.cidr)
		}
	}
	return out
}

// handleKey names what an address is released with: its handle, or nothing else
// when it has none. No object has a blank in its name.
func handleKey(a ipam.Allocation) string {
	if a.Handle == "" {
		return "address " + a.Addr.String()
	}
	return handleName(a.Handle)
}

// handleName is the name of the object behind a handle. What follows a carriage
// return is dirt of an old migration: see ipam.Block.
func handleName(id string) string {
	id, _, _ = strings.Cut(id, "\r")
	return ipam.HandleName(id)
}
