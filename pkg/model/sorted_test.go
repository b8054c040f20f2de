package model

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// numbered is a key and what stands under it.
type numbered struct{ key, value int }

func (n numbered) Compare(o numbered) int { return cmp.Compare(n.key, o.key) }

// TestSorted edits lists at random and compares them with maps: what is made leaves alone
// what it was made of, and Since is the difference.
func TestSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	want := map[int]int{}
	var list Sorted[numbered]
	for step := range 600 {
		before, had := list, maps.Clone(want)
		var put, drop []numbered
		most := 8
		if step%50 == 0 {
			most = 2000
		}
		for range r.IntN(most) {
			n := numbered{r.IntN(5000), step}
			if r.IntN(5) < 2 || step > 500 {
				drop = append(drop, n)
			} else {
				put = append(put, n)
			}
		}
		for _, n := range drop {
			delete(want, n.key)
		}
		for _, n := range put {
			want[n.key] = n.value
		}
		list = list.With(put, drop)
		is(t, step, list, want)
		is(t, step, before, had)
		differs(t, step, before, list, had, want)
		differs(t, step, SortedOf(slices.Collect(before.All())), list, had, want)
	}
}

func is(t *testing.T, step int, s Sorted[numbered], want map[int]int) {
	t.Helper()
	all := slices.Collect(s.All())
	if s.Len() != len(want) || len(all) != len(want) {
		t.Fatalf("step %d: %d members, Len %d, want %d", step, len(all), s.Len(), len(want))
	}
	for i, n := range all {
		if v, there := want[n.key]; !there || v != n.value || i > 0 && all[i-1].key >= n.key {
			t.Fatalf("step %d: member %d is %v, want %d %v", step, i, n, v, there)
		}
	}
	for _, key := range []int{0, 17, 2500, 4999} {
		v, there := want[key]
		if got, found := s.Get(numbered{key: key}); found != there || got.value != v {
			t.Fatalf("step %d: Get(%d) gives %v %v, want %d %v", step, key, got, found, v, there)
		}
	}
}

func differs(t *testing.T, step int, before, after Sorted[numbered], had, want map[int]int) {
	t.Helper()
	got := maps.Clone(had)
	for was, is := range after.Since(before) {
		switch {
		case was != nil && had[was.key] != was.value, is != nil && want[is.key] != is.value, was != nil && is != nil && was.key != is.key:
			t.Fatalf("step %d: %v became %v", step, was, is)
		case is == nil:
			delete(got, was.key)
		default:
			got[is.key] = is.value
		}
	}
	if !maps.Equal(got, want) {
		t.Fatalf("step %d: what differs leads from %d members to %d, want %d", step, len(had), len(got), len(want))
	}
}

// TestSortedShares: one member more or less of many is found without a look at the
// others.
func TestSortedShares(t *testing.T) {
	var all []numbered
	for i := range 100_000 {
		all = append(all, numbered{key: 2 * i})
	}
	list := SortedOf(all)
	for _, key := range []int{-1, 1, 77_777, 300_000} {
		more, seen := list.With([]numbered{{key: key}}, nil), 0
		for range more.Since(list) {
			seen++
		}
		if seen > 2*longestRun {
			t.Errorf("%d was found by a look at %d members", key, seen)
		}
		if !more.With(nil, []numbered{{key: key}}).Equal(list) || more.Equal(list) {
			t.Errorf("without %d the list is another", key)
		}
	}
}
