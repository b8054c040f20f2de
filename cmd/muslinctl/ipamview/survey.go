package ipamview

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Survey is what the datastore and the cluster say about addresses. Blocks are
// reduced as they come, so that a survey of a large cluster stays small.
type Survey struct {
	Pools      []model.Pool
	Reserved   []netip.Prefix
	Blocks     []Block
	Affinities []ipam.Affinity
	Handles    map[string]ipam.Handle
	Nodes      map[model.NodeName]Node
	Pods       map[netip.Addr]Pod    // that run, not on the host's network
	Services   map[netip.Addr]string // namespace/name of one that has it in its status, of type LoadBalancer
	Invalid    []string              // breaches inside blocks
	Taken      []Taken               // sorted by address
}

// Block is a block without its addresses.
type Block struct {
	CIDR                             netip.Prefix
	Affinity                         string
	Node                             model.NodeName
	Size, InUse, Available, Reserved int
}

// Taken is an address that has an owner.
type Taken struct {
	Addr                       netip.Addr
	Block                      netip.Prefix
	BlockNode                  model.NodeName
	Handle                     string
	Node, Namespace, Pod, Type string
	Service                    string // in Namespace, whose LoadBalancer address it is
	Sequence                   uint64
}

// Node is a node with its tunnel addresses.
type Node struct{ Tunnels []netip.Addr }

// Pod is a pod that has an address.
type Pod struct{ Namespace, Name, Node string }

// AddBlock reduces a block into the survey.
func (s *Survey) AddBlock(b *ipam.Block, now time.Time) {
	if err := b.Validate(now); err != nil {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				s.Invalid = append(s.Invalid, e.Error())
			}
		}
	}
	free, held := b.Available(s.reserved)
	s.Blocks = append(s.Blocks, Block{CIDR: b.CIDR(), Affinity: b.Affinity(), Node: b.Node(), Size: b.Size(), InUse: b.InUse(), Available: free, Reserved: held})
	for a := range b.Allocations() {
		s.Taken = append(s.Taken, Taken{
			Addr: a.Addr, Block: b.CIDR(), BlockNode: b.Node(), Handle: a.Handle, Sequence: a.Sequence,
			Node: a.Owner["node"], Namespace: a.Owner["namespace"], Pod: a.Owner["pod"], Type: a.Owner["type"],
			Service: a.Owner["service"],
		})
	}
}

func (s *Survey) reserved(a netip.Addr) bool {
	return slices.ContainsFunc(s.Reserved, func(p netip.Prefix) bool { return p.Contains(a) })
}

// Sort puts the survey in order; call it after the last AddBlock.
func (s *Survey) Sort() {
	slices.SortFunc(s.Blocks, func(a, b Block) int { return a.CIDR.Compare(b.CIDR) })
	slices.SortFunc(s.Taken, func(a, b Taken) int { return cmp.Or(a.Addr.Compare(b.Addr), a.Block.Compare(b.Block)) })
	slices.SortFunc(s.Pools, func(a, b model.Pool) int { return a.CIDR.Compare(b.CIDR) })
	slices.Sort(s.Invalid)
}

// PoolOf is the pool that holds an address.
func (s *Survey) PoolOf(a netip.Addr) (model.Pool, bool) {
	i := slices.IndexFunc(s.Pools, func(p model.Pool) bool { return p.CIDR.Contains(a) })
	if i < 0 {
		return model.Pool{}, false
	}
	return s.Pools[i], true
}
