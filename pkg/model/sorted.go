package model

import (
	"iter"
	"slices"
)

// Sorted is a list in order, with each key once. It is a value: nobody changes one, and
// one that is made of another shares all members but the few hundred around each
// difference with it. So a change costs what it changes, to make and to find, however
// long the list is. Compare says which of two keys is first; 0: they are equal. The
// zero value is empty.
type Sorted[T interface{ Compare(T) int }] struct {
	runs [][]T // none of them empty, or written again
	len  int
}

// longestRun is how many members share one piece of memory at most.
const longestRun = 256

// SortedOf gives the members of a list in any order; of equal keys the last counts.
func SortedOf[T interface{ Compare(T) int }](list []T) Sorted[T] {
	list = slices.Clone(list)
	slices.SortStableFunc(list, T.Compare)
	all := list[:0]
	for i, key := range list {
		if i+1 == len(list) || key.Compare(list[i+1]) != 0 {
			all = append(all, key)
		}
	}
	if len(all) == 0 {
		return Sorted[T]{}
	}
	return Sorted[T]{runs: slices.Collect(slices.Chunk(all, pieces(len(all)))), len: len(all)}
}

// Len counts the members.
func (s Sorted[T]) Len() int { return s.len }

// All gives the members in order.
func (s Sorted[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, run := range s.runs {
			for _, member := range run {
				if !yield(member) {
					return
				}
			}
		}
	}
}

// Get gives the member with a key.
func (s Sorted[T]) Get(key T) (member T, found bool) {
	if len(s.runs) == 0 {
		return member, false
	}
	run := s.runs[s.place(key)]
	if i, found := slices.BinarySearchFunc(run, key, T.Compare); found {
		return run[i], true
	}
	return member, false
}

// place gives the run that key is in, if it is in any.
func (s Sorted[T]) place(key T) int {
	i, found := slices.BinarySearchFunc(s.runs, key, func(run []T, key T) int { return run[0].Compare(key) })
	if !found {
		i = max(i-1, 0)
	}
	return i
}

// edit is what becomes of a key.
type edit[T any] struct {
	key  T
	drop bool
}

// With gives s with some members, in the place of those with their keys, and without
// others. A key that is to be put and to be dropped is put.
func (s Sorted[T]) With(put, drop []T) Sorted[T] {
	edits := make([]edit[T], 0, len(put)+len(drop))
	for _, key := range drop {
		edits = append(edits, edit[T]{key, true})
	}
	for _, key := range put {
		edits = append(edits, edit[T]{key, false})
	}
	slices.SortStableFunc(edits, func(a, b edit[T]) int { return a.key.Compare(b.key) })
	if len(s.runs) == 0 {
		s.runs = [][]T{nil}
	}
	out, at := Sorted[T]{runs: make([][]T, 0, len(s.runs)+1+len(edits)/longestRun), len: s.len}, 0
	for len(edits) > 0 {
		i, n := 0, len(edits)
		if len(s.runs) > 1 {
			i = s.place(edits[0].key)
		}
		if i+1 < len(s.runs) {
			next := s.runs[i+1][0]
			n, _ = slices.BinarySearchFunc(edits, next, func(e edit[T], next T) int { return e.key.Compare(next) })
		}
		run := edited(s.runs[i], edits[:n])
		out.runs = append(out.runs, s.runs[at:i]...)
		out.runs = slices.AppendSeq(out.runs, slices.Chunk(run, pieces(len(run))))
		out.len += len(run) - len(s.runs[i])
		at, edits = i+1, edits[n:]
	}
	out.runs = append(out.runs, s.runs[at:]...)
	if out.len == 0 {
		return Sorted[T]{}
	}
	return out
}

// pieces gives the length of runs that n members are cut into.
func pieces(n int) int {
	if n <= longestRun {
		return longestRun
	}
	return longestRun * 3 / 4 // room for what comes
}

// edited gives a run with edits, which are in order, the last of each key being the one
// that counts.
func edited[T interface{ Compare(T) int }](run []T, edits []edit[T]) []T {
	out := make([]T, 0, len(run)+len(edits))
	for i, e := range edits {
		if i+1 < len(edits) && e.key.Compare(edits[i+1].key) == 0 {
			continue
		}
		n, found := slices.BinarySearchFunc(run, e.key, T.Compare)
		out = append(out, run[:n]...)
		if run = run[n:]; found {
			run = run[1:]
		}
		if !e.drop {
			out = append(out, e.key)
		}
	}
	return append(out, run...)
}

// Since gives what differs from a list of before, in order of the keys: nil and a member
// that came, a member that went and nil. What has one key in both comes as both, where
// it is not known from the memory that it is the same.
func (s Sorted[T]) Since(old Sorted[T]) iter.Seq2[*T, *T] {
	return func(yield func(was, is *T) bool) {
		a, b := cursor[T]{runs: old.runs}, cursor[T]{runs: s.runs}
		for {
			for a.at == 0 && b.at == 0 && len(a.runs) > 0 && len(b.runs) > 0 && &a.runs[0][0] == &b.runs[0][0] && len(a.runs[0]) == len(b.runs[0]) {
				a.runs, b.runs = a.runs[1:], b.runs[1:]
			}
			was, is := a.member(), b.member()
			if was == nil && is == nil {
				return
			}
			switch {
			case was == nil || is == nil:
			case (*was).Compare(*is) < 0:
				is = nil
			case (*was).Compare(*is) > 0:
				was = nil
			}
			a.past(was)
			b.past(is)
			if !yield(was, is) {
				return
			}
		}
	}
}

// cursor is a place in a list.
type cursor[T any] struct {
	runs [][]T
	at   int // in the first run
}

func (c *cursor[T]) member() *T {
	if len(c.runs) == 0 {
		return nil
	}
	return &c.runs[0][c.at]
}

// past goes on behind a member, if there is one.
func (c *cursor[T]) past(member *T) {
	if member == nil {
		return
	}
	if c.at++; c.at == len(c.runs[0]) {
		c.runs, c.at = c.runs[1:], 0
	}
}

// Equal reports whether two lists have the same keys.
func (s Sorted[T]) Equal(o Sorted[T]) bool {
	if s.len != o.len {
		return false
	}
	for was, is := range s.Since(o) {
		if was == nil || is == nil {
			return false
		}
	}
	return true
}
