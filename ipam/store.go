package ipam

import (
	"context"
	"maps"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// Revision is the state of an object that a write builds upon.
type Revision struct {
	// Number grows with every write of the object (a Kubernetes
	// resourceVersion), as long as the store is not put back to an older state.
	// Numbers of one kind can be compared.
	Number uint64
	// Meta is the store's own: whatever it must carry from a read to a write.
	Meta any
}

// Affinity is a node's claim to a block (Calico BlockAffinity).
type Affinity struct {
	Node  model.NodeName
	CIDR  netip.Prefix
	State model.BlockState
	Type  string // "host", or "virtual"
}

// AffinityKey names an affinity.
type AffinityKey struct {
	Node model.NodeName
	CIDR netip.Prefix
}

// Handle counts the addresses that belong to one owner, by block (Calico
// IPAMHandle). Its id is the CNI network's name, a dot, and the container id;
// or the name of a tunnel address and its node.
type Handle struct {
	ID     string
	Blocks map[netip.Prefix]int
}

// Equal compares the counts, too.
func (h Handle) Equal(o Handle) bool { return h.ID == o.ID && maps.Equal(h.Blocks, o.Blocks) }

// Objects reads and writes objects of one kind, each by compare and swap.
//
// Get returns ErrNotFound, also for an object whose delete has begun. Create
// returns ErrExists. Update and Delete return ErrConflict when the object is
// not at the given revision any more, and ErrNotFound when it is gone. Any
// other error of a write leaves open whether it took effect.
type Objects[K comparable, T any] interface {
	Get(ctx context.Context, key K) (T, Revision, error)
	Create(ctx context.Context, value T) (Revision, error)
	Update(ctx context.Context, value T, at Revision) (Revision, error)
	Delete(ctx context.Context, value T, at Revision) error
}

// Store is where blocks, affinities and handles live, shared by every node.
// Implementations are safe for concurrent use, and give up on a call within
// seconds rather than minutes.
type Store interface {
	Blocks() Objects[netip.Prefix, *Block]
	Affinities() Objects[AffinityKey, Affinity]
	Handles() Objects[string, Handle]

	// BlockCIDRs lists the prefixes of the blocks that exist inside a prefix;
	// it may be a second old. It is as cheap as a list can be: names only.
	BlockCIDRs(ctx context.Context, within netip.Prefix) ([]netip.Prefix, error)

	// NamesFrom reads names of blocks that exist (BlockName), in byte order and
	// beginning with the first that is not less than from: a few hundred at
	// most, and more reports whether others follow.
	NamesFrom(ctx context.Context, from string) (names []string, more bool, err error)

	// EachBlock reads every block inside a prefix, in pages, until visit
	// returns false. It is the costly way; only a full pool justifies it.
	EachBlock(ctx context.Context, within netip.Prefix, visit func(*Block, Revision) bool) error

	// BlocksOf lists the blocks that are affine to somebody, as HostAffinity or
	// VirtualAffinity names them, and no older than the call.
	BlocksOf(ctx context.Context, affinity string) ([]*Block, error)

	// WatchOwn tells what becomes of one node's blocks and affinities, until
	// ctx ends; it returns nil then. It mends its own connection. Calls to w
	// come one at a time.
	WatchOwn(ctx context.Context, node model.NodeName, w Watcher) error
}

// List says of when a list is.
type List struct {
	Number uint64 // the list has every write up to this one
	// Restored says that the store was put back to an older state since the list
	// before, as etcd from a backup: what was known may never have happened.
	Restored bool
}

// Watcher is told of a node's own objects. A replace stands for a list: what
// is not in it is gone; Synced is called once both kinds have been listed.
type Watcher interface {
	ReplaceBlocks(blocks []*Block, at []Revision, list List)
	Block(b *Block, at Revision)
	BlockGone(cidr netip.Prefix, at Revision)
	ReplaceAffinities(affinities []Affinity, at []Revision, list List)
	Affinity(a Affinity, at Revision)
	AffinityGone(key AffinityKey, at Revision)
	Synced()
}
