package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"testing"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"

	kruntime "k8s.io/apimachinery/pkg/runtime"
)

const (
	manyNodes = 500
	// nodeLimit is what the agent may hold for one node of the cluster, in
	// bytes: 5,000 nodes in 20 MB.
	nodeLimit = 4096
)

// What an agent keeps of a large cluster fits beside everything else it holds.
func TestHeapOfALargeCluster(t *testing.T) {
	server.Install(t)
	client := rawClient(t)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range manyNodes {
		g.Go(func() error { return client.Post().AbsPath("/api/v1/nodes").Body(largeNode(i)).Do(t.Context()).Error() })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // one request for all
		_ = client.Delete().AbsPath("/api/v1/nodes").Param("labelSelector", "large=yes").Do(context.Background()).Error()
	})
	before := heap()
	c := watch(t, kube.Options{Node: "large-0"})
	if n := len(c.Snapshot().Nodes); n < manyNodes {
		t.Fatalf("%d nodes", n)
	}
	held := int64(heap()) - int64(before)
	t.Logf("%d nodes hold %.1f MB", manyNodes, float64(held)/(1<<20))
	if held > manyNodes*nodeLimit {
		t.Errorf("%d bytes a node, want at most %d", held/manyNodes, nodeLimit)
	}
	runtime.KeepAlive(c)
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// largeNode is a node with what kubelets and clouds put on one.
func largeNode(i int) []byte {
	labels := map[string]string{"large": "yes"}
	annotations := map[string]string{"projectcalico.org/IPv4Address": fmt.Sprintf("10.%d.%d.1/16", i/250, i%250)}
	for j := range 15 {
		labels[fmt.Sprintf("label.example.com/number-%d", j)] = fmt.Sprintf("value-%d", j)
		annotations[fmt.Sprintf("annotation.example.com/number-%d", j)] = fmt.Sprintf("a rather longer value, number %d of node %d", j, i)
	}
	var images, conditions []map[string]any
	for j := range 50 {
		images = append(images, map[string]any{"names": []string{fmt.Sprintf("registry.example.com/some/image-%d@sha256:0123456789abcdef", j)}, "sizeBytes": 1 << 20})
	}
	for j := range 5 {
		conditions = append(conditions, map[string]any{"type": fmt.Sprintf("Condition%d", j), "status": "False", "message": "a sentence of the usual length"})
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Node",
		"metadata": map[string]any{"name": fmt.Sprintf("large-%d", i), "labels": labels, "annotations": annotations},
		"status":   map[string]any{"images": images, "conditions": conditions},
	})
	if err != nil {
		panic(err)
	}
	return body
}

func rawClient(t testing.TB) *rest.RESTClient { return rawClientOf(t, server) }

func rawClientOf(t testing.TB, server *kubetest.Server) *rest.RESTClient {
	t.Helper()
	cfg := server.Config()
	cfg.GroupVersion, cfg.APIPath = &schema.GroupVersion{Version: "v1"}, "/api"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(kruntime.NewScheme()).WithoutConversion()
	cfg.ContentType = "application/json"
	c, err := rest.RESTClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
