package kube

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// Meta is what the controller has to know of an object beside its value.
type Meta struct {
	UID        string
	Generation int64
	Created    time.Time
	Deleting   bool
	Finalizers []string
	Conditions []metav1.Condition
}

// row is one object of a table.
type row[T any] struct {
	meta     Meta
	value    T
	ok       bool // value is good: of this version of the object, or of the last good one
	problems []model.Problem
}

// reading is what a translation makes of an object. When ok is false the value
// that was good last stays in force.
type reading[T any] struct {
	value    T
	ok       bool
	problems []model.Problem
}

// table is the store behind one reflector. It keeps translated values instead
// of API objects.
type table[T any] struct {
	mu    *sync.Mutex // the cluster's: tables of one cluster change together
	read  func(obj any) reading[T]
	strip cache.TransformFunc
	note  func() // called with mu held when a row or synced changed
	// via is between the reflector and the table; nil: nothing.
	via    cache.ReflectorStore
	synced bool
	rows   map[string]row[T]
	keys   []string // of rows, sorted; nil: to be sorted anew
	list   []T      // see values; nil: to be put together anew
	rev    revision
	// touched has the keys of rows that came, changed and went since somebody cleared it; nil:
	// nobody asks.
	touched map[string]bool
}

var _ cache.TransformingStore = (*table[int])(nil)

// Transformer makes rows of what a list has, one after the other as they come.
func (t *table[T]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) {
		o, err := meta.Accessor(obj)
		if err != nil {
			return nil, err
		}
		_, r, err := t.rowOf(obj)
		return &listed[T]{nameOf(o), r}, err
	}
}

func (t *table[T]) Resync() error { return nil }

func (t *table[T]) Add(obj any) error { return t.Update(obj) }

func (t *table[T]) Update(obj any) error {
	key, next, err := t.rowOf(obj)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.put(key, next, t.rows) {
		t.noteRows()
	}
	return nil
}

func (t *table[T]) Delete(obj any) error {
	key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.rows[key]; ok {
		delete(t.rows, key)
		t.touch(key)
		if i, found := slices.BinarySearch(t.keys, key); found {
			t.keys = slices.Delete(t.keys, i, i+1)
		}
		t.noteRows()
	}
	return nil
}

func (t *table[T]) Replace(list []any, _ string) error {
	next := make(map[string]row[T], len(list))
	for _, obj := range list {
		key, r, err := t.rowOf(obj)
		if err != nil {
			return err
		}
		next[key] = r
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exchange(next)
	return nil
}

// exchange makes these the rows. The caller holds mu.
func (t *table[T]) exchange(next map[string]row[T]) {
	old := t.rows
	changed := !t.synced || len(old) != len(next)
	t.rows, t.keys = make(map[string]row[T], len(next)), nil
	for key := range old {
		t.touch(key)
	}
	for key, r := range next {
		changed = t.put(key, r, old) || changed
	}
	t.synced = true
	if changed {
		t.noteRows()
	}
}

// noteRows tells that the rows are others. The caller holds mu.
func (t *table[T]) noteRows() {
	t.list = nil
	t.rev++
	t.note()
}

// clear makes the table what it was before it was filled. The caller holds mu,
// and nothing feeds the table any more.
func (t *table[T]) clear() {
	for key := range t.rows {
		t.touch(key)
	}
	t.rows, t.keys, t.list, t.synced = map[string]row[T]{}, nil, nil, false
	t.rev++
}

// touch notes that a row is another one now.
func (t *table[T]) touch(key string) {
	if t.touched != nil {
		t.touched[key] = true
	}
}

// put stores next under key, unless old has the like, and reports whether it differs
// from that.
func (t *table[T]) put(key string, next row[T], old map[string]row[T]) bool {
	have, existed := old[key]
	if !next.ok && have.ok {
		next.value, next.ok = have.value, true
	}
	if _, known := t.rows[key]; !known && t.keys != nil {
		i, _ := slices.BinarySearch(t.keys, key)
		t.keys = slices.Insert(t.keys, i, key)
	}
	t.touch(key)
	if existed && reflect.DeepEqual(have, next) {
		t.rows[key] = have
		return false
	}
	t.rows[key] = next
	return true
}

func (t *table[T]) rowOf(obj any) (string, row[T], error) {
	key, err := cache.MetaNamespaceKeyFunc(obj)
	if err != nil {
		return "", row[T]{}, fmt.Errorf("name %T: %w", obj, err)
	}
	if l, read := obj.(*listed[T]); read {
		return key, l.row, nil
	}
	if t.strip != nil {
		if obj, err = t.strip(obj); err != nil {
			return "", row[T]{}, err
		}
	}
	r := t.read(obj)
	return key, row[T]{meta: metaOf(obj), value: r.value, ok: r.ok, problems: r.problems}, nil
}

func metaOf(obj any) Meta {
	if p, ok := obj.(*networking.NetworkPolicy); ok {
		return Meta{UID: string(p.UID), Generation: p.Generation}
	}
	o, ok := obj.(*object)
	if !ok {
		return Meta{}
	}
	return Meta{
		UID: string(o.UID), Generation: o.Generation, Created: o.CreationTimestamp.Time,
		Deleting: o.DeletionTimestamp != nil, Finalizers: o.Finalizers, Conditions: o.conditions(),
	}
}

// values gives the good values in order of their keys: the same list, which nobody may
// change, as long as the rows are. The caller holds mu.
func (t *table[T]) values() []T {
	if t.list == nil {
		t.list = make([]T, 0, len(t.rows))
		for _, key := range t.sorted() {
			if r := t.rows[key]; r.ok {
				t.list = append(t.list, r.value)
			}
		}
	}
	return t.list
}

// revision counts how often something has become another. The sum of some is another
// one whenever one of them is.
type revision uint64

// derived is a value that is made of tables. It is the same value as long as they are the
// same, so that who compares it with the one of before need not look into it.
type derived[T any] struct {
	of    revision
	value T
	made  bool
}

// at gives the value of a revision of what it is made of.
func (d *derived[T]) at(of revision, make func() T) T {
	if !d.made || d.of != of {
		d.of, d.value, d.made = of, make(), true
	}
	return d.value
}

// sorted gives the keys of the rows in order. The caller holds mu.
func (t *table[T]) sorted() []string {
	if t.keys == nil {
		t.keys = slices.Sorted(maps.Keys(t.rows))
	}
	return t.keys
}

// problems gives every row's problems in order of the keys. The caller holds mu.
func (t *table[T]) allProblems() []model.Problem {
	var out []model.Problem
	for _, key := range t.sorted() {
		out = append(out, t.rows[key].problems...)
	}
	return out
}
