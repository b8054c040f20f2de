// Package ipamtest is an ipam.Store in memory, with faults: conflicts, replies
// that get lost after the write took effect, refusals, and crashes of a client
// between any two calls. It drives the allocator through far more interleavings
// than an apiserver could in the time, and checks on every write what must
// never happen: a block that breaks the rules, or an address that goes from
// one owner to another without being free between.
//
// It is a second implementation of the Store's contract, not a stand-in for
// the first: the race test runs against a real kube-apiserver as well. Kernel
// and wire footprint: none.
package ipamtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
)

// Errors of the faults.
var (
	ErrLost    = errors.New("ipamtest: the reply was lost")
	ErrRefused = errors.New("ipamtest: the request was refused")
	ErrCrashed = fmt.Errorf("ipamtest: the client has crashed: %w", ipam.ErrClosed)
)

// Fault is what happens to one call.
type Fault int

// The values of Fault.
const (
	None     Fault = iota
	Conflict       // an update or delete fails with ErrConflict, and has no effect
	Lost           // the call takes effect and fails with ErrLost
	Refused        // the call fails with ErrRefused, and has no effect
	Crash          // the call takes effect or not, by chance; this and all later calls of the client fail
)

// Store holds the objects.
type Store struct {
	mu       sync.Mutex
	cond     *sync.Cond
	revision uint64
	blocks   map[string]*object
	affs     map[string]*object
	handles  map[string]*object
	log      []change
	cut      int // how many entries of the log are forgotten
	restored int // how often the store was put back
	broken   []string
}

// object is one stored object.
type object struct {
	value    any // *ipam.Block, ipam.Affinity or ipam.Handle; never changed in place
	revision uint64
	deleted  bool // a delete has begun
}

// logLength is how many changes are kept at least; a watch that is further behind
// has to list.
const logLength = 10_000

// change is one entry of the log that watches read.
type change struct {
	before, after any // nil: did not, does not exist
	revision      uint64
}

// New makes an empty store.
func New() *Store {
	s := &Store{blocks: map[string]*object{}, affs: map[string]*object{}, handles: map[string]*object{}}
	s.cond = sync.NewCond(&s.mu)
	return s
}

// Broken lists the breaches that were seen so far.
func (s *Store) Broken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.broken)
}

// Blocks are all blocks, by prefix.
func (s *Store) Blocks() map[netip.Prefix]*ipam.Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[netip.Prefix]*ipam.Block{}
	for _, o := range s.blocks {
		if b := o.value.(*ipam.Block); !o.deleted {
			out[b.CIDR()] = b.Clone()
		}
	}
	return out
}

// Handles are all handles, by id.
func (s *Store) Handles() map[string]ipam.Handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]ipam.Handle{}
	for _, o := range s.handles {
		if h := o.value.(ipam.Handle); !o.deleted {
			out[h.ID] = h
		}
	}
	return out
}

// Affinities are all affinities.
func (s *Store) Affinities() []ipam.Affinity {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ipam.Affinity
	for _, key := range slices.Sorted(maps.Keys(s.affs)) {
		if o := s.affs[key]; !o.deleted {
			out = append(out, o.value.(ipam.Affinity))
		}
	}
	return out
}

// record notes a change and checks it. Callers hold mu.
func (s *Store) record(before, after any) uint64 {
	if b, ok := after.(*ipam.Block); ok {
		old, _ := before.(*ipam.Block)
		s.check(old, b)
	}
	return s.tell(before, after)
}

// tell notes a change and wakes the watches. Callers hold mu.
func (s *Store) tell(before, after any) uint64 {
	s.revision++
	s.log = append(s.log, change{before: before, after: after, revision: s.revision})
	if len(s.log) >= 2*logLength {
		s.log, s.cut = slices.Clone(s.log[logLength:]), s.cut+logLength
	}
	s.cond.Broadcast()
	return s.revision
}

// check holds a written block to the rules. Callers hold mu.
func (s *Store) check(old, b *ipam.Block) {
	if err := b.Validate(time.Now()); err != nil {
		s.broken = append(s.broken, err.Error())
	}
	if old == nil {
		return
	}
	if b.Sequence() <= old.Sequence() {
		s.broken = append(s.broken, fmt.Sprintf("block %s: sequence number went from %d to %d", b.CIDR(), old.Sequence(), b.Sequence()))
	}
	for was := range old.Allocations() {
		for is := range b.Allocations() {
			if is.Addr == was.Addr && is.Handle != was.Handle && is.Sequence != old.Sequence() {
				s.broken = append(s.broken, fmt.Sprintf("%s went from %s to %s without being assigned anew", was.Addr, was.Handle, is.Handle))
			}
		}
	}
}

// copyOf copies a stored value for a reader.
func copyOf(value any) any {
	switch v := value.(type) {
	case *ipam.Block:
		return v.Clone()
	case ipam.Handle:
		v.Blocks = maps.Clone(v.Blocks)
		return v
	}
	return value
}

// written copies a value that is to be stored; a block goes through JSON for it,
// as it does on the wire.
func written(value any) any {
	b, ok := value.(*ipam.Block)
	if !ok {
		return copyOf(value)
	}
	data, err := json.Marshal(b)
	if err != nil {
		panic(err)
	}
	out := new(ipam.Block)
	if err := json.Unmarshal(data, out); err != nil {
		panic(err)
	}
	return out
}
