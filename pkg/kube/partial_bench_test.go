package kube

import (
	"fmt"
	"log/slog"
	"runtime"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// BenchmarkPolicyHeap is what the policies of a cluster take in the memory of an agent with 30 pods in as many
// namespaces, beside the namespaces: three to a namespace, and then its PolicyView. Without a node all are kept.
func BenchmarkPolicyHeap(b *testing.B) {
	heap := func() float64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	for _, policies := range []int{90, 7_500, 75_000} {
		b.Run(fmt.Sprint("policies=", policies), func(b *testing.B) {
			for b.Loop() {
				c, err := New(&rest.Config{Host: "https://192.0.2.1"}, Options{Node: "n1", Policy: true, PolicyOwnPods: true, Logger: slog.New(slog.DiscardHandler)})
				if err != nil {
					b.Fatal(err)
				}
				put := func(err error) {
					if err != nil {
						b.Fatal(err)
					}
				}
				for i := range policies / 3 {
					name := fmt.Sprint("namespace-", i)
					put(c.namespaces.Update(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name, "team": name}}}))
				}
				for i := range 30 {
					put(c.pods.Update(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("namespace-", i), Name: "pod"}, Spec: corev1.PodSpec{NodeName: "n1"}}))
				}
				before := heap()
				c.mu.Lock()
				c.policies.wantOwn(c)
				c.mu.Unlock()
				put(c.policies.parts[0].Replace(largePolicies(policies), "1"))
				kept := heap()
				view := c.PolicyView()
				if n := view.Policies.Len(); n != 90 {
					b.Fatalf("%d policies", n)
				}
				b.ReportMetric(kept-before, "MB/policies")
				b.ReportMetric(heap()-kept, "MB/view")
				runtime.KeepAlive([]any{c, view})
			}
		})
	}
}

func largePolicies(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = kubetest.LargePolicy(i)
	}
	return list
}
