package kube

import (
	"context"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// partial is the store of a reflector that keeps the objects of some namespaces, those of
// a node's pods, and of all others no more than that they are there. A namespace that comes
// to be wanted is listed by itself. Its fields are guarded by the cluster's mu.
type partial[T any] struct {
	*table[T]
	feed    feed
	spaces  map[string]*space // that are wanted
	others  hashes            // of the keys of objects of other namespaces
	seed    maphash.Seed
	due     chan struct{} // some namespace has to be listed
	begin   chan struct{} // closed once it is known what is wanted
	begun   bool
	arrived func() // called with mu held when all of a namespace has come to be there
}

// hashes are a set, sorted: there may be very many, and they seldom change.
type hashes []uint64

func (h *hashes) add(x uint64) {
	if i, found := slices.BinarySearch(*h, x); !found {
		*h = slices.Insert(*h, i, x)
	}
}

func (h *hashes) remove(x uint64) {
	if i, found := slices.BinarySearch(*h, x); found {
		*h = slices.Delete(*h, i, i+1)
	}
}

// space is a namespace that is wanted.
type space struct {
	listed  bool            // at least once, by itself or with all others
	due     bool            // to be listed by itself
	version uint64          // of the list that it is by itself; 0: none
	events  map[string]bool // keys that the watch named since a list of it began; nil: none is under way that counts
}

var _ cache.TransformingStore = (*partial[int])(nil)

func newPartial[T any](t *table[T], f feed) *partial[T] {
	return &partial[T]{
		table: t, feed: f, spaces: map[string]*space{}, seed: maphash.MakeSeed(),
		due: make(chan struct{}, 1), begin: make(chan struct{}),
	}
}

// run is that of a table's source, once it is known what is wanted: then few namespaces
// have to be listed by themselves.
func (p *partial[T]) run(mirror func(context.Context)) func(context.Context) {
	return func(ctx context.Context) {
		select {
		case <-p.begin:
		case <-ctx.Done():
			return
		}
		var wg sync.WaitGroup
		wg.Go(func() { p.follow(ctx) })
		mirror(ctx)
		wg.Wait()
	}
}

// start has the reflector begin: want has been called. The caller holds mu.
func (p *partial[T]) start() {
	if !p.begun {
		p.begun = true
		close(p.begin)
	}
}

// has reports whether all of a namespace is there. The caller holds mu.
func (p *partial[T]) has(namespace string) bool {
	s := p.spaces[namespace]
	return s != nil && s.listed
}

// more reports whether there are objects that are not kept. The caller holds mu.
func (p *partial[T]) more() bool { return len(p.others) > 0 }

// want has the objects of these namespaces be kept. The caller holds mu.
func (p *partial[T]) want(namespaces map[string]bool) {
	dropped := false
	for name := range p.spaces {
		if !namespaces[name] {
			p.drop(name)
			dropped = true
		}
	}
	for name := range namespaces {
		if p.spaces[name] == nil {
			p.spaces[name] = &space{due: true}
			p.hint()
		}
	}
	if dropped {
		p.keys = nil
		p.noteRows()
	}
}

// drop keeps of a namespace no more than that its objects are there.
func (p *partial[T]) drop(name string) {
	delete(p.spaces, name)
	for key := range p.of(name) {
		delete(p.rows, key)
		p.touch(key)
		p.others.add(p.hash(key))
	}
}

// of gives the rows of a namespace.
func (p *partial[T]) of(namespace string) map[string]row[T] {
	out := map[string]row[T]{}
	for key, r := range p.rows {
		if name, _, _ := cache.SplitMetaNamespaceKey(key); name == namespace {
			out[key] = r
		}
	}
	return out
}

func (p *partial[T]) hash(key string) uint64 { return maphash.String(p.seed, key) }

func (p *partial[T]) hint() {
	select {
	case p.due <- struct{}{}:
	default:
	}
}

// Transformer leaves of what nobody wants its name, from before a list is whole.
func (p *partial[T]) Transformer() cache.TransformFunc {
	whole := p.table.Transformer()
	return func(obj any) (any, error) {
		o, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		p.mu.Lock()
		wanted := p.spaces[o.GetNamespace()] != nil
		p.mu.Unlock()
		if wanted {
			return whole(obj)
		}
		bare := nameOf(o)
		return &bare, nil
	}
}

// Add is cache.Store's.
func (p *partial[T]) Add(obj any) error { return p.Update(obj) }

// Update is cache.Store's.
func (p *partial[T]) Update(obj any) error {
	if p.elsewhere(obj, true) {
		return nil
	}
	return p.table.Update(obj)
}

// Delete is cache.Store's.
func (p *partial[T]) Delete(obj any) error {
	p.elsewhere(obj, false)
	return p.table.Delete(obj)
}

// elsewhere takes note of an object that comes or goes, and reports whether it is of a
// namespace that is not kept.
func (p *partial[T]) elsewhere(obj any, there bool) bool {
	o, err := meta.Accessor(obj)
	if err != nil {
		return false
	}
	key := o.GetNamespace() + "/" + o.GetName()
	p.mu.Lock()
	defer p.mu.Unlock()
	s, more := p.spaces[o.GetNamespace()], p.more()
	if s != nil || !there {
		p.others.remove(p.hash(key))
	} else {
		p.others.add(p.hash(key))
	}
	if more != p.more() {
		p.note()
	}
	if s == nil {
		return true
	}
	if s.events != nil {
		s.events[key] = true
	}
	if _, stripped := obj.(*named); stripped {
		s.due = true
		p.hint()
		return true
	}
	return false
}

// Replace is cache.Store's: of a namespace that was listed by itself later than this list,
// what that gave stays, and one that was not wanted when a part of the list came is listed anew.
func (p *partial[T]) Replace(list []any, version string) error {
	p.mu.Lock()
	wanted := map[string]bool{}
	for name := range p.spaces {
		wanted[name] = true
	}
	p.mu.Unlock()
	next, others, bare := map[string]row[T]{}, hashes{}, map[string]bool{}
	for _, obj := range list {
		o, err := meta.Accessor(obj)
		if err != nil {
			return err
		}
		name := o.GetNamespace()
		if _, stripped := obj.(*named); stripped || !wanted[name] {
			others = append(others, p.hash(name+"/"+o.GetName()))
			bare[name] = true
			continue
		}
		key, r, err := p.rowOf(obj)
		if err != nil {
			return err
		}
		next[key] = r
	}
	slices.Sort(others)
	p.mu.Lock()
	defer p.mu.Unlock()
	more := p.more()
	p.others = slices.Clip(others)
	for name, s := range p.spaces {
		p.adopt(name, s, next, !wanted[name] || bare[name], versionOf(version, math.MaxUint64))
	}
	if p.exchange(next); more != p.more() {
		p.note()
	}
	p.hint()
	return nil
}

// adopt has a namespace be what a list of all says, in next, or stay as it is.
func (p *partial[T]) adopt(name string, s *space, next map[string]row[T], part bool, version uint64) {
	if !part && s.version <= version {
		s.due, s.events = false, nil
		p.listedNow(s)
		return
	}
	for key := range next {
		if of, _, _ := cache.SplitMetaNamespaceKey(key); of == name {
			delete(next, key)
			p.others.add(p.hash(key)) // until the namespace is listed, or dropped
		}
	}
	for key, r := range p.of(name) {
		next[key] = r
		p.others.remove(p.hash(key))
	}
	if part {
		s.due, s.events = true, nil
	}
}

func (p *partial[T]) listedNow(s *space) {
	if first := !s.listed; first {
		s.listed = true
		p.arrived()
		p.note()
	}
}

// versionOf reads a resourceVersion, which grows with each change (KEP-5504).
func versionOf(text string, unreadable uint64) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return unreadable
	}
	return n
}

// follow lists namespaces that come to be wanted, until ctx ends.
func (p *partial[T]) follow(ctx context.Context) {
	for {
		var again <-chan time.Time
		for _, name := range p.unlisted() {
			if err := p.list(ctx, name); err != nil {
				again = time.After(time.Second) // the watch, of the same server, tells of it
			}
		}
		select {
		case <-p.due:
		case <-again:
		case <-ctx.Done():
			return
		}
	}
}

// unlisted names the namespaces that are to be listed by themselves: none before all have
// been, which may be with them.
func (p *partial[T]) unlisted() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, s := range p.spaces {
		if p.synced && s.due {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// list brings a namespace to what the server has.
func (p *partial[T]) list(ctx context.Context, name string) error {
	s := p.request(name)
	f := p.feed
	f.namespace = name
	list, err := f.listWatch(f.client).ListWithContextFunc(ctx, metav1.ListOptions{})
	switch {
	case apierrors.IsNotFound(err): // the kind
		return p.take(name, s, nil, 0)
	case err != nil:
		return err
	}
	of, err := meta.ListAccessor(list)
	if err != nil {
		return err
	}
	items, err := meta.ExtractList(list)
	if err != nil {
		return err
	}
	objects := make([]any, len(items))
	for i, o := range items {
		objects[i] = o
	}
	return p.take(name, s, objects, versionOf(of.GetResourceVersion(), 0))
}

// request begins to take note of what the watch names while a list is under way.
func (p *partial[T]) request(name string) *space {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.spaces[name]
	if s != nil {
		s.events = map[string]bool{}
	}
	return s
}

// take takes a list of a namespace over: what the watch named meanwhile it knows better.
func (p *partial[T]) take(name string, s *space, objects []any, version uint64) error {
	next := map[string]row[T]{}
	for _, obj := range objects {
		key, r, err := p.rowOf(obj)
		if err != nil {
			return err
		}
		next[key] = r
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s == nil || p.spaces[name] != s || s.events == nil {
		return nil // it is older than what is there
	}
	for key := range p.of(name) {
		if _, still := next[key]; !still && !s.events[key] {
			delete(p.rows, key)
			p.touch(key)
		}
	}
	for key, r := range next {
		if !s.events[key] {
			p.others.remove(p.hash(key))
			p.put(key, r, p.rows)
		}
	}
	s.due, s.events, s.version = false, nil, version
	p.keys = nil
	p.listedNow(s)
	p.noteRows()
	return nil
}
