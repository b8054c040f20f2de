package controller

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// world is what allocations are judged against.
type world struct {
	nodes map[model.NodeName]map[string]string // labels
	pools []model.Pool
	pod   func(namespace, name string) (podFacts, bool)
}

func newWorld(s model.Snapshot, pod func(namespace, name string) (podFacts, bool)) world {
	w := world{nodes: make(map[model.NodeName]map[string]string, len(s.Nodes)), pools: s.Pools, pod: pod}
	for i := range s.Nodes {
		w.nodes[s.Nodes[i].Name] = s.Nodes[i].Labels
	}
	return w
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

// leaked reports whether an address has an owner on paper that does not have
// it in life: the pod is gone or finished, runs on another node, or has other
// addresses. What has no pod (tunnels, load balancers) or no handle is never
// leaked while its node lives; package doc says who frees what of dead nodes.
func (w world) leaked(a ipam.Allocation) bool {
	if a.Handle == "" || a.Owner["pod"] == "" || a.Owner["namespace"] == "" {
		return false
	}
	if n := a.Owner["node"]; n != "" {
		if _, lives := w.nodes[model.NodeName(n)]; !lives {
			return false
		}
	}
	return !w.has(a.Owner, a.Addr) && !w.has(a.Alternate, a.Addr)
}

// has reports whether a pod has the address, or may yet come to have it.
func (w world) has(owner map[string]string, addr netip.Addr) bool {
	if owner["pod"] == "" {
		return false
	}
	p, ok := w.pod(owner["namespace"], owner["pod"])
	if !ok || p.finished {
		return false
	}
	if n := owner["node"]; n != "" && p.node != "" && p.node != n {
		return false
	}
	return len(p.ips) == 0 || slices.Contains(p.ips, addr)
}

// survey is what one reading of every block gives.
type survey struct {
	handles map[string]held // by object name
	blocks  []seenBlock
	usage   map[place]usage
	owners  map[model.NodeName]bool // that have an address somewhere
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
}

// seenBlock is a block as it was found.
type seenBlock struct {
	cidr     netip.Prefix
	affinity string
	node     model.NodeName
	seq      uint64
	idle     bool // nobody has an address in it
	cooling  bool // idle, but addresses still cool down
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
	return &survey{handles: map[string]held{}, usage: map[place]usage{}, owners: map[model.NodeName]bool{}}
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
		s.owners[node] = true
		u := usage{inUse: 1}
		if node != b.Node() {
			u.borrowed = 1
		}
		h := s.handles[handleName(a.Handle)]
		if w.leaked(a) {
			u.candidates = 1
			h.leaks = append(h.leaks, leak{b.CIDR(), a})
		} else {
			h.inUse = true
		}
		if a.Handle != "" {
			s.handles[handleName(a.Handle)] = h
		}
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

// handleName is the name of the object behind a handle. What follows a carriage
// return is dirt of an old migration: see ipam.Block.
func handleName(id string) string {
	id, _, _ = strings.Cut(id, "\r")
	return ipam.HandleName(id)
}
