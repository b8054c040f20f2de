package ipamtest

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// Client is one node's way to the store; it implements ipam.Store.
type Client struct {
	store *Store
	// faults decides on every call, named by verb and kind ("update block");
	// nil: none. It may be called concurrently.
	faults func(call string) Fault

	mu      sync.Mutex
	crashed bool
	calls   map[string]int
	seen    uint64 // the highest revision that it was told of
}

// Client makes a client whose calls suffer what faults says.
func (s *Store) Client(faults func(call string) Fault) *Client {
	return &Client{store: s, faults: faults, calls: map[string]int{}}
}

// Crashed reports whether the client is dead.
func (c *Client) Crashed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.crashed
}

// Calls counts the calls so far, by verb and kind, and forgets them.
func (c *Client) Calls() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.calls
	c.calls = map[string]int{}
	return out
}

// call decides what happens to a call.
func (c *Client) call(ctx context.Context, name string) (Fault, error) {
	if err := ctx.Err(); err != nil {
		return Refused, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.crashed {
		return Refused, ErrCrashed
	}
	c.calls[name]++
	if c.faults == nil {
		return None, nil
	}
	f := c.faults(name)
	if f == Refused {
		return Refused, ErrRefused
	}
	if f == Crash {
		c.crashed = true
		c.store.cond.Broadcast()
		if rand.N(2) == 0 {
			return Refused, ErrCrashed
		}
	}
	return f, nil
}

// note takes a revision that the caller is told of.
func (c *Client) note(revision uint64) ipam.Revision {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = max(c.seen, revision)
	return ipam.Revision{Number: revision}
}

// outcome is what the caller learns of a call that took effect.
func outcome(f Fault, err error) error {
	if f == Lost {
		return ErrLost
	}
	if f == Crash {
		return ErrCrashed
	}
	return err
}

// Blocks gives access to blocks.
func (c *Client) Blocks() ipam.Objects[netip.Prefix, *ipam.Block] {
	return &objects[netip.Prefix, *ipam.Block]{c: c, kind: "block", in: c.store.blocks,
		name: ipam.BlockName, key: func(b *ipam.Block) netip.Prefix { return b.CIDR() }}
}

// Affinities gives access to affinities.
func (c *Client) Affinities() ipam.Objects[ipam.AffinityKey, ipam.Affinity] {
	return &objects[ipam.AffinityKey, ipam.Affinity]{c: c, kind: "affinity", in: c.store.affs,
		name: func(k ipam.AffinityKey) string { return ipam.AffinityName(k.Node, k.CIDR) },
		key:  func(a ipam.Affinity) ipam.AffinityKey { return ipam.AffinityKey{Node: a.Node, CIDR: a.CIDR} }}
}

// Handles gives access to handles.
func (c *Client) Handles() ipam.Objects[string, ipam.Handle] {
	return &objects[string, ipam.Handle]{c: c, kind: "handle", in: c.store.handles,
		name: ipam.HandleName, key: func(h ipam.Handle) string { return h.ID }}
}

// objects implements ipam.Objects over one of the store's maps.
type objects[K comparable, T any] struct {
	c    *Client
	kind string
	in   map[string]*object
	name func(K) string
	key  func(T) K
}

func (o *objects[K, T]) Get(ctx context.Context, key K) (value T, rev ipam.Revision, err error) {
	f, err := o.c.call(ctx, "get "+o.kind)
	if err != nil {
		return value, rev, err
	}
	s := o.c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	have := o.in[o.name(key)]
	if have != nil && have.deleted {
		o.remove(o.name(key), have)
		have = nil
	}
	if have == nil {
		return value, rev, outcome(f, ipam.ErrNotFound)
	}
	return copyOf(have.value).(T), o.c.note(have.revision), outcome(f, nil)
}

func (o *objects[K, T]) Create(ctx context.Context, value T) (ipam.Revision, error) {
	f, err := o.c.call(ctx, "create "+o.kind)
	if err != nil {
		return ipam.Revision{}, err
	}
	s := o.c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	name := o.name(o.key(value))
	if have := o.in[name]; have != nil && have.deleted {
		o.remove(name, have)
	} else if have != nil {
		return ipam.Revision{}, outcome(f, ipam.ErrExists)
	}
	stored := written(value)
	o.in[name] = &object{value: stored, revision: s.record(nil, stored)}
	return o.c.note(s.revision), outcome(f, nil)
}

func (o *objects[K, T]) Update(ctx context.Context, value T, at ipam.Revision) (ipam.Revision, error) {
	f, err := o.c.call(ctx, "update "+o.kind)
	if err != nil {
		return ipam.Revision{}, err
	}
	s := o.c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	have := o.in[o.name(o.key(value))]
	switch {
	case have == nil:
		return ipam.Revision{}, outcome(f, ipam.ErrNotFound)
	case f == Conflict || have.deleted || have.revision != at.Number:
		return ipam.Revision{}, outcome(f, ipam.ErrConflict)
	}
	stored := written(value)
	have.revision = s.record(have.value, stored)
	have.value = stored
	return o.c.note(have.revision), outcome(f, nil)
}

// Delete takes two steps, as the delete protocol does: a client can crash
// between them.
func (o *objects[K, T]) Delete(ctx context.Context, value T, at ipam.Revision) error {
	f, err := o.c.call(ctx, "delete "+o.kind)
	if err != nil {
		return err
	}
	s := o.c.store
	name := o.name(o.key(value))
	s.mu.Lock()
	have := o.in[name]
	switch {
	case have == nil:
		s.mu.Unlock()
		return outcome(f, ipam.ErrNotFound)
	case !have.deleted && (f == Conflict || have.revision != at.Number):
		s.mu.Unlock()
		return outcome(f, ipam.ErrConflict)
	}
	have.deleted = true
	s.mu.Unlock()
	if f == Crash {
		return ErrCrashed
	}
	if _, err := o.c.call(ctx, "finish "+o.kind); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.in[name] == have {
		o.remove(name, have)
	}
	return outcome(f, nil)
}

func (o *objects[K, T]) remove(name string, have *object) {
	delete(o.in, name)
	o.c.store.record(have.value, nil)
}

// BlockCIDRs lists prefixes.
func (c *Client) BlockCIDRs(ctx context.Context, within netip.Prefix) ([]netip.Prefix, error) {
	if _, err := c.call(ctx, "list names"); err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for cidr := range c.store.Blocks() {
		if within.Overlaps(cidr) {
			out = append(out, cidr)
		}
	}
	return out, nil
}

// windowSize is how many names NamesFrom gives.
const windowSize = 100

// NamesFrom reads names of blocks.
func (c *Client) NamesFrom(ctx context.Context, from string) (names []string, more bool, err error) {
	if _, err := c.call(ctx, "list window"); err != nil {
		return nil, false, err
	}
	for cidr := range c.store.Blocks() {
		if name := ipam.BlockName(cidr); name >= from {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(names) > windowSize {
		return names[:windowSize], true, nil
	}
	return names, false, nil
}

// EachBlock reads blocks.
func (c *Client) EachBlock(ctx context.Context, within netip.Prefix, visit func(*ipam.Block, ipam.Revision) bool) error {
	if _, err := c.call(ctx, "list block"); err != nil {
		return err
	}
	for cidr, b := range c.store.Blocks() {
		if within.Overlaps(cidr) && !visit(b, ipam.Revision{}) {
			return nil
		}
	}
	return nil
}

// BlocksOf lists blocks by their affinity.
func (c *Client) BlocksOf(ctx context.Context, affinity string) ([]*ipam.Block, error) {
	if _, err := c.call(ctx, "list block"); err != nil {
		return nil, err
	}
	var out []*ipam.Block
	for _, b := range c.store.Blocks() {
		if b.Affinity() == affinity {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b *ipam.Block) int { return a.CIDR().Compare(b.CIDR()) })
	return out, nil
}

// WatchOwn lists, follows the log, and lists again when the store was put back or
// the log is cut.
func (c *Client) WatchOwn(ctx context.Context, node model.NodeName, w ipam.Watcher) error {
	s := c.store
	stop := context.AfterFunc(ctx, func() { s.mu.Lock(); defer s.mu.Unlock(); s.cond.Broadcast() })
	defer stop()
	at := c.list(node, w)
	w.Synced()
	for {
		s.mu.Lock()
		for s.restored == at.restored && s.cut+len(s.log) == at.next && ctx.Err() == nil && !c.Crashed() {
			s.cond.Wait()
		}
		relist := s.restored != at.restored || s.cut > at.next
		var news []change
		if !relist {
			news = s.log[at.next-s.cut:]
		}
		s.mu.Unlock()
		switch {
		case ctx.Err() != nil || c.Crashed():
			<-ctx.Done()
			return nil
		case relist:
			at = c.list(node, w)
		}
		for _, e := range news {
			at.next++
			c.note(e.revision)
			tell(node, w, e)
		}
	}
}

// position is how far a watch has come.
type position struct {
	next     int // entry of the log
	restored int // how often the store had been put back
}

// list tells w the present state and returns where the log goes on.
func (c *Client) list(node model.NodeName, w ipam.Watcher) position {
	s := c.store
	s.mu.Lock()
	defer s.mu.Unlock()
	var blocks []*ipam.Block
	var affs []ipam.Affinity
	var at, affAt []ipam.Revision
	for _, o := range s.blocks {
		if b := o.value.(*ipam.Block); b.Node() == node && !o.deleted {
			blocks, at = append(blocks, copyOf(b).(*ipam.Block)), append(at, ipam.Revision{Number: o.revision})
		}
	}
	for _, o := range s.affs {
		if a := o.value.(ipam.Affinity); a.Node == node && !o.deleted {
			affs, affAt = append(affs, a), append(affAt, ipam.Revision{Number: o.revision})
		}
	}
	c.mu.Lock()
	list := ipam.List{Number: s.revision, Restored: s.revision < c.seen}
	c.seen = s.revision
	c.mu.Unlock()
	w.ReplaceAffinities(affs, affAt, list)
	w.ReplaceBlocks(blocks, at, list)
	return position{s.cut + len(s.log), s.restored}
}

// tell turns a change into what a watch with a selector would say of it.
func tell(node model.NodeName, w ipam.Watcher, e change) {
	at := ipam.Revision{Number: e.revision}
	oldBlock, _ := e.before.(*ipam.Block)
	oldAff, wasAff := e.before.(ipam.Affinity)
	switch v := e.after.(type) {
	case *ipam.Block:
		if v.Node() == node {
			w.Block(copyOf(v).(*ipam.Block), at)
			return
		}
	case ipam.Affinity:
		if v.Node == node {
			w.Affinity(v, at)
			return
		}
	}
	switch {
	case oldBlock != nil && oldBlock.Node() == node:
		w.BlockGone(oldBlock.CIDR(), at)
	case wasAff && oldAff.Node == node:
		w.AffinityGone(ipam.AffinityKey{Node: node, CIDR: oldAff.CIDR}, at)
	}
}
