// Package reconcile compares what is with what should be.
//
// It is for reconcilers: whoever reads the kernel hands in what he found and
// what he wants, and gets what to add, change and remove, in that order and
// sorted, so that equal situations give equal requests. It never acts and keeps
// nothing. Kernel and wire footprint: none.
//
//	    have        want
//	┌─────────┬───┬─────────┐
//	│ remove  │ = │   add   │   keys on one side only
//	│         │ ≠ │ change  │   keys on both sides, by value
//	└─────────┴───┴─────────┘
package reconcile

import "slices"

// Entry is a key with its value.
type Entry[K comparable, V any] struct {
	Key   K
	Value V
}

// Delta is the way from what is to what should be. Add and Change have the
// wanted values, Remove the present ones. Each is sorted by key.
type Delta[K comparable, V any] struct {
	Add, Change, Remove []Entry[K, V]
}

// Diff compares have with want. same reports whether two values need no change,
// order sorts keys.
func Diff[K comparable, V any](have, want map[K]V, same func(have, want V) bool, order func(a, b K) int) Delta[K, V] {
	var d Delta[K, V]
	for k, w := range want {
		h, ok := have[k]
		switch {
		case !ok:
			d.Add = append(d.Add, Entry[K, V]{k, w})
		case !same(h, w):
			d.Change = append(d.Change, Entry[K, V]{k, w})
		}
	}
	for k, h := range have {
		if _, ok := want[k]; !ok {
			d.Remove = append(d.Remove, Entry[K, V]{k, h})
		}
	}
	byKey := func(a, b Entry[K, V]) int { return order(a.Key, b.Key) }
	slices.SortFunc(d.Add, byKey)
	slices.SortFunc(d.Change, byKey)
	slices.SortFunc(d.Remove, byKey)
	return d
}
