package controller

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"golang.org/x/sync/errgroup"
)

var podCount = flag.Int("pods", 5000, "pods that BenchmarkPodIndex makes")

// BenchmarkPodIndex measures what the index of all pods costs: the heap it
// holds for each, and the most that the process had in memory while it listed
// them. It fails no bound; the figures are for a release's notes.
func BenchmarkPodIndex(b *testing.B) {
	s := kubetest.Start(b)
	s.MustKubectl(b, "", "create", "serviceaccount", "default")
	o, err := NewObjects(s.Config(), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	makePods(b, s, *podCount)
	b.Logf("%d pods made in %s", *podCount, time.Since(began).Round(time.Second))
	b.ResetTimer()
	for range b.N {
		before := heap()
		_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // resets the peak
		o.pods = newPodIndex()
		ctx, cancel := context.WithCancel(b.Context())
		var g errgroup.Group
		g.Go(func() error { o.watchPods(ctx); return nil })
		<-o.pods.synced
		peak := peakMB()
		after := heap()
		if n := len(o.pods.rows); n != *podCount {
			b.Fatalf("%d pods in the index, want %d", n, *podCount)
		}
		b.ReportMetric(float64(after-before)/float64(*podCount), "B-held/pod")
		b.ReportMetric(peak, "MB-peak-RSS")
		cancel()
		_ = g.Wait()
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// peakMB is the process's highest resident memory since it was reset.
func peakMB() float64 {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		var kb float64
		if n, _ := fmt.Sscanf(line, "VmHWM: %f kB", &kb); n == 1 {
			return kb / 1024
		}
	}
	return 0
}

// makePods makes pods as large as ordinary ones, about 4 KB each.
func makePods(b *testing.B, s *kubetest.Server, n int) {
	b.Helper()
	cfg := s.Config()
	cfg.QPS = -1
	o, err := NewObjects(cfg, nil)
	if err != nil {
		b.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for i := range n {
		g.Go(func() error {
			return o.client.Post().AbsPath("/api/v1/namespaces/default/pods").SetHeader("Content-Type", jsonType).
				Body(podBody(b, i)).Do(b.Context()).Error()
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func podBody(b *testing.B, i int) []byte {
	env := make([]map[string]any, 20)
	for j := range env {
		env[j] = map[string]any{"name": fmt.Sprintf("SOME_SETTING_%d", j), "value": fmt.Sprintf("a value of ordinary length, number %d", j)}
	}
	annotations := map[string]string{}
	for j := range 8 {
		annotations[fmt.Sprintf("annotation.example.com/number-%d", j)] = strings.Repeat("text ", 20)
	}
	body, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{"name": fmt.Sprintf("workload-6f7d9c5b8-%05d", i), "annotations": annotations, "labels": map[string]string{"app": "workload", "pod-template-hash": "6f7d9c5b8"}},
		"spec": map[string]any{
			"nodeName": fmt.Sprintf("node-%d", i/30), "automountServiceAccountToken": false,
			"containers": []map[string]any{{"name": "main", "image": "registry.example.com/some/image:v1", "env": env}},
		},
	})
	if err != nil {
		b.Error(err)
	}
	return body
}
