package kube

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
)

// A list that is not whole yet, which a reflector keeps in a store of its own, holds what a table
// will hold of it, and of what a node does not want the name alone.
func TestHeapOfAListOnItsWay(t *testing.T) {
	const many = 5_000
	relay, agent := newCluster(t, Options{Policy: true, PolicyRelay: true}), newCluster(t, Options{Node: "n1", Policy: true, PolicyOwnPods: true})
	for name, c := range map[string]struct {
		store  cache.TransformingStore
		object func(i int) any
		most   float64 // bytes of each, with its place in the store
	}{
		"pods of a relay":            {relay.policies.pods, func(i int) any { return largePod(i) }, 640},
		"policies of a controller":   {relay.policies.of[0], func(i int) any { return kubetest.LargePolicy(i) }, 800},
		"policies of other nodes":    {agent.policies.parts[0], func(i int) any { return kubetest.LargePolicy(i) }, 256},
		"namespaces of all clusters": {relay.namespaces, func(i int) any { return largeNamespace(i) }, 700},
	} {
		t.Run(name, func(t *testing.T) {
			list := cache.NewStore(cache.DeletionHandlingMetaNamespaceKeyFunc, cache.WithTransformer(c.store.Transformer()))
			before := heapNow()
			for i := range many {
				if err := list.Add(c.object(i)); err != nil {
					t.Fatal(err)
				}
			}
			each := (heapNow() - before) / many
			t.Logf("%.0f bytes each", each)
			if each > c.most {
				t.Errorf("%.0f bytes of each, want at most %.0f", each, c.most)
			}
			if err := c.store.Replace(list.List(), "1"); err != nil {
				t.Fatal(err)
			}
		})
	}
	if n := len(relay.policies.pods.rows); n != many {
		t.Errorf("%d pods were taken over, want %d", n, many)
	}
}

func newCluster(t *testing.T, o Options) *Cluster {
	t.Helper()
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := New(&rest.Config{Host: "https://192.0.2.1"}, o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func heapNow() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func largePod(i int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("namespace-", i/40), Name: fmt.Sprint("pod-", i), Labels: map[string]string{"app": fmt.Sprint("app-", i%5), "pod-template-hash": "7d9c6b8f5"}},
		Spec:       corev1.PodSpec{NodeName: fmt.Sprint("node-", i%100), ServiceAccountName: "default", Containers: []corev1.Container{{Name: "main", Image: "none"}}},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%d", i/256, i%256)}}},
	}
}

func largeNamespace(i int) *corev1.Namespace {
	name := fmt.Sprint("namespace-", i)
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name, "team": name}}}
}
