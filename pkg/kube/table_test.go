package kube

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A table's values are in order of their keys whatever came and went.
func TestTableIsSorted(t *testing.T) {
	tab := &table[string]{
		mu: new(sync.Mutex), note: func() {}, rows: map[string]row[string]{},
		read: func(o any) reading[string] { return reading[string]{value: o.(*corev1.Pod).Name, ok: true} },
	}
	want := map[string]bool{}
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		name := fmt.Sprint("p", r.IntN(50))
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}}
		switch r.IntN(20) {
		case 0:
			want = map[string]bool{name: true}
			_ = tab.Replace([]any{pod}, "")
		case 1:
			tab.clear()
			clear(want)
		case 2, 3, 4, 5, 6, 7:
			_ = tab.Delete(pod)
			delete(want, name)
		default:
			_ = tab.Add(pod)
			want[name] = true
		}
		if got := tab.values(); !slices.Equal(got, slices.Sorted(maps.Keys(want))) {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}
