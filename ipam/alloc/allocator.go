package alloc

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// DefaultMaxBlocks is how many blocks of a family a node may hold when the
// configuration does not say (Calico's own limit).
const DefaultMaxBlocks = 20

// Config is Calico's IPAMConfiguration.
type Config struct {
	StrictAffinity     bool // no borrowing from other nodes' blocks
	AutoAllocateBlocks bool // claim new blocks as needed
	MaxBlocksPerHost   int  // blocks of each family; 0 means DefaultMaxBlocks
	CooldownSeconds    int  // how long a released address stays unused; 0 to 1200
	// Locked: nothing is written, Assign and Release fail with CodeLocked.
	Locked bool
}

// DefaultConfig is what holds without an IPAMConfiguration object.
func DefaultConfig() Config { return Config{AutoAllocateBlocks: true} }

func (c Config) cooldown() time.Duration {
	return time.Duration(c.CooldownSeconds) * time.Second
}

func (c Config) maxBlocks() int {
	if c.MaxBlocksPerHost > 0 {
		return c.MaxBlocksPerHost
	}
	return DefaultMaxBlocks
}

// Allocator assigns addresses for one node. It holds the node's own blocks in
// memory, from a watch and from its own writes, so that an assignment costs
// one write of the block, one of the handle, and no read.
//
// Every method is safe for concurrent use. Assign, Release and EnsureBlock wait
// until Run has learned the node's blocks.
type Allocator struct {
	node    model.NodeName
	store   ipam.Store
	ready   chan struct{}
	changed chan struct{} // holds one hint
	wake    chan struct{} // holds one hint for the repair loop
	growing map[model.Family]chan struct{}

	mu              sync.Mutex
	set             settings
	pages           map[netip.Prefix]*page
	handles         map[string]*handle
	full            map[string]*poolUsage // by pool name
	elsewhere       func(netip.Prefix) bool
	grown           uint64    // counts claimed blocks
	versions        uint64    // the newest of a page
	unheard         time.Time // until then no other node's block is asked for: nobody answered
	synced          bool
	pendingReleases map[string]time.Time // handles whose undo failed, and when to try again
	problems        []model.Problem
	doubts          map[netip.Prefix]time.Time // blocks another node seems to be taking, since when

	live     map[netip.Addr]Live      // what endpoints have; replaced as a whole
	given    map[netip.Addr]given     // what Assign has returned and no endpoint has yet
	foreign  map[netip.Addr]time.Time // when a block that is not this node's was seen to have a live address
	suspects map[string]time.Time     // live handles to look at anew, and when, as the store has lost something
	unstored map[string]unstored      // live handles that could not be stored
}

// settings is what the allocator is told; each part is replaced as a whole.
type settings struct {
	pools    []model.Pool
	labels   map[string]string
	config   Config
	reserved []netip.Prefix
}

// New makes an allocator for a node. It does nothing until Run.
func New(node model.NodeName, store ipam.Store) *Allocator {
	return &Allocator{
		node: node, store: store, elsewhere: func(netip.Prefix) bool { return false },
		ready:           make(chan struct{}),
		changed:         make(chan struct{}, 1),
		wake:            make(chan struct{}, 1),
		growing:         map[model.Family]chan struct{}{model.IPv4: make(chan struct{}, 1), model.IPv6: make(chan struct{}, 1)},
		set:             settings{config: DefaultConfig()},
		pages:           map[netip.Prefix]*page{},
		handles:         map[string]*handle{},
		full:            map[string]*poolUsage{},
		pendingReleases: map[string]time.Time{},
		doubts:          map[netip.Prefix]time.Time{},

		given:    map[netip.Addr]given{},
		foreign:  map[netip.Addr]time.Time{},
		suspects: map[string]time.Time{},
		unstored: map[string]unstored{},
	}
}

// String names the task.
func (a *Allocator) String() string { return "ipam" }

// Ready is closed once the node's blocks are known and leftovers of an earlier
// run have been looked at.
func (a *Allocator) Ready() <-chan struct{} { return a.ready }

// Changed yields a hint when Blocks, Borrowed or Usage may have changed. Hints
// that nobody fetches are merged.
func (a *Allocator) Changed() <-chan struct{} { return a.changed }

// SetPools replaces the pools. The allocator keeps the slice.
func (a *Allocator) SetPools(pools []model.Pool) {
	a.configure(func(s *settings) bool {
		same := slices.EqualFunc(s.pools, pools, samePool)
		s.pools = pools
		return same
	})
}

// SetNode replaces what is known of the node: its labels count.
func (a *Allocator) SetNode(node model.Node) {
	a.configure(func(s *settings) bool {
		same := maps.Equal(s.labels, node.Labels)
		s.labels = node.Labels
		return same
	})
}

// SetConfig replaces the configuration.
func (a *Allocator) SetConfig(c Config) {
	a.configure(func(s *settings) bool {
		same := s.config == c
		s.config = c
		return same
	})
}

// SetReservations replaces the prefixes that are not assigned unless asked for
// by address (Calico IPReservation). The allocator keeps the slice.
func (a *Allocator) SetReservations(reserved []netip.Prefix) {
	a.configure(func(s *settings) bool {
		same := slices.Equal(s.reserved, reserved)
		s.reserved = reserved
		return same
	})
}

// configure changes the settings; change reports whether nothing new came. No
// signal is given: whoever sets on a hint would go round in circles.
func (a *Allocator) configure(change func(*settings) (same bool)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !change(&a.set) {
		clear(a.full) // what was full may have room now
		clear(a.unstored)
		a.wakeRepair()
	}
}

// signal tells whoever waits on Changed. Callers hold mu or do not care.
func (a *Allocator) signal() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

func (a *Allocator) wakeRepair() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// awaitReady waits until the node's blocks are known. It fails while nothing may
// be written.
func (a *Allocator) awaitReady(ctx context.Context) error {
	select {
	case <-a.ready:
		return a.Locked()
	case <-ctx.Done():
		return &ipam.Error{Code: ipam.CodeUnavailable, Object: model.Ref{Kind: "Node", Name: string(a.node)},
			Detail: "its blocks have not been read yet", Hint: "check that the node reaches the Kubernetes API", Err: context.Cause(ctx)}
	}
}

// Locked is the error with which Assign and Release fail at present, if any: the
// configuration says that nothing may be written.
func (a *Allocator) Locked() error {
	if a.config().Locked {
		return errLocked()
	}
	return nil
}

// Blocks are the node's own blocks, sorted. Only a confirmed one may be
// announced to others.
func (a *Allocator) Blocks() []model.Block {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []model.Block
	for _, p := range a.pages {
		if p.aff != nil || p.own(a.node) {
			out = append(out, model.Block{CIDR: p.cidr, Node: a.node, State: p.state(a.node)})
		}
	}
	slices.SortFunc(out, func(x, y model.Block) int { return x.CIDR.Compare(y.CIDR) })
	return out
}

// Borrowed are the addresses in use on this node that lie in other blocks than
// its own confirmed ones, as host prefixes, sorted. They have to be announced
// one by one.
func (a *Allocator) Borrowed() []netip.Prefix {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []netip.Prefix
	for addr := range a.outside() {
		out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// outside are the addresses in use on this node that no confirmed block of its
// holds. Callers hold mu.
func (a *Allocator) outside() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	for addr := range a.live {
		if !a.inOwnBlock(addr) {
			out[addr] = true
		}
	}
	for _, h := range a.handles {
		for addr := range h.held {
			if !a.inOwnBlock(addr) {
				out[addr] = true
			}
		}
	}
	return out
}

// inOwnBlock reports whether a confirmed block of this node holds the address.
// Callers hold mu.
func (a *Allocator) inOwnBlock(addr netip.Addr) bool {
	for _, p := range a.pages {
		if p.cidr.Contains(addr) && p.own(a.node) && p.state(a.node) == model.BlockConfirmed {
			return true
		}
	}
	return false
}

// Versions are the node's confirmed blocks, each with a number that is another once
// the block has been written by somebody else, or may have been: until then only this
// node has given out its addresses, and taken them back.
func (a *Allocator) Versions() map[netip.Prefix]uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make(map[netip.Prefix]uint64, len(a.pages))
	for _, p := range a.pages {
		if p.own(a.node) && p.state(a.node) == model.BlockConfirmed {
			out[p.cidr] = p.version
		}
	}
	return out
}

// Allocations are the addresses in the node's own blocks that have an owner,
// by block and address. The allocator's own undo aside, nobody looks for
// owners that are gone: whoever knows the node's workloads compares them with
// this list after a start and releases the rest.
func (a *Allocator) Allocations() []ipam.Allocation {
	a.mu.Lock()
	defer a.mu.Unlock()
	var out []ipam.Allocation
	for _, p := range a.sortedPages() {
		if p.own(a.node) {
			out = slices.AppendSeq(out, p.block.Allocations())
		}
	}
	return out
}

// Addresses are the addresses of a handle on this node, borrowed ones among
// them, in ascending order.
func (a *Allocator) Addresses(handleID string) []netip.Addr {
	a.mu.Lock()
	h := a.handles[handleID]
	if h == nil {
		h = &handle{id: handleID}
	}
	a.mu.Unlock()
	return slices.SortedFunc(maps.Keys(a.have(h)), netip.Addr.Compare)
}

// Usage counts what the node holds of one pool.
type Usage struct {
	Pool     string // empty: blocks that lie in no known pool
	Family   model.Family
	Blocks   int
	Capacity int // addresses in the blocks
	InUse    int // of them with an owner, on whatever node
	Borrowed int // addresses this node uses out of others' blocks
}

// Usage counts the node's blocks and addresses by pool, sorted by name.
func (a *Allocator) Usage() []Usage {
	a.mu.Lock()
	defer a.mu.Unlock()
	by := map[string]*Usage{}
	entry := func(addr netip.Addr) *Usage {
		pool, _ := poolOf(a.set.pools, addr)
		key := pool.Name + model.FamilyOf(addr).String()
		if by[key] == nil {
			by[key] = &Usage{Pool: pool.Name, Family: model.FamilyOf(addr)}
		}
		return by[key]
	}
	for _, p := range a.pages {
		if p.own(a.node) {
			u := entry(p.cidr.Addr())
			u.Blocks++
			u.Capacity += p.block.Size()
			u.InUse += p.block.InUse()
		}
	}
	for addr := range a.outside() {
		entry(addr).Borrowed++
	}
	var out []Usage
	for _, u := range by {
		out = append(out, *u)
	}
	slices.SortFunc(out, func(x, y Usage) int {
		return cmp.Or(cmp.Compare(x.Pool, y.Pool), cmp.Compare(x.Family, y.Family))
	})
	return out
}

// Problems are what the allocator could not put right: affinities and blocks
// that contradict each other, and live addresses that could not be stored.
func (a *Allocator) Problems() []model.Problem {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := slices.Clone(a.problems)
	for _, id := range slices.Sorted(maps.Keys(a.unstored)) {
		out = append(out, a.unstored[id].problems...)
	}
	return out
}

// sortedPages lists the pages by prefix. Callers hold mu.
func (a *Allocator) sortedPages() []*page {
	out := make([]*page, 0, len(a.pages))
	for _, p := range a.pages {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y *page) int { return x.cidr.Compare(y.cidr) })
	return out
}

func errLocked() *ipam.Error {
	return &ipam.Error{Code: ipam.CodeLocked, Object: model.Ref{Kind: "ClusterInformation", Name: "default"}, Field: "spec.datastoreReady",
		Detail: "it is false: addresses are neither given nor taken back", Hint: "set it to true when the maintenance is over; it is tried again"}
}
