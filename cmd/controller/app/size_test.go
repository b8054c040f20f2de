package app

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sync/errgroup"
)

var podCount = flag.Int("pods", 2000, "pods that the benchmarks make")

// podsPerNode is how many of them share a node and its block.
const podsPerNode = 30

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
		peak := memoryOf(os.Getpid(), "VmHWM")
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

// memoryOf is a line of a process's status in /proc, in MB.
func memoryOf(pid int, key string) float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		if name == key {
			kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			return kb / 1024
		}
	}
	return 0
}

func podName(i int) string { return fmt.Sprintf("workload-6f7d9c5b8-%05d", i) }

// makePods makes pods as large as ordinary ones, about 4 KB each.
func makePods(b testing.TB, s *kubetest.Server, n int) {
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

func podBody(b testing.TB, i int) []byte {
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
		"metadata": map[string]any{"name": podName(i), "annotations": annotations, "labels": map[string]string{"app": "workload", "pod-template-hash": "6f7d9c5b8"}},
		"spec": map[string]any{
			"nodeName": fmt.Sprintf("node-%d", i/podsPerNode), "automountServiceAccountToken": false,
			"containers": []map[string]any{{"name": "main", "image": "registry.example.com/some/image:v1", "env": env}},
		},
	})
	if err != nil {
		b.Error(err)
	}
	return body
}

// mostMemory is what the controller may have in memory beside 100,000 pods, in MB.
const mostMemory = 300

// BenchmarkController runs the controller's own program beside a cluster of
// -pods pods, 30 to a node, each with an address and a handle, and measures the
// most memory it has had until every address has been surveyed twice.
func BenchmarkController(b *testing.B) {
	s, program := populate(b, *podCount)
	b.ResetTimer()
	for range b.N {
		m := runBeside(b, s, program, *podCount)
		b.ReportMetric(m.firstSurvey.Seconds(), "s-to-first-survey")
		b.ReportMetric(m.peak, "MB-peak-RSS")
		b.ReportMetric(m.end, "MB-RSS")
		if m.peak > mostMemory && *podCount <= 100_000 {
			b.Errorf("the controller had %.0f MB beside %d pods; its bound is %d", m.peak, *podCount, mostMemory)
		}
	}
}

// populate starts a server with n pods, their nodes, blocks, affinities and
// handles, and builds the controller.
func populate(t testing.TB, n int) (s *kubetest.Server, program string) {
	t.Helper()
	s = kubetest.StartWithCRDs(t)
	s.MustKubectl(t, "", "create", "serviceaccount", "default")
	s.MustKubectl(t, "", "create", "namespace", "muslin-system")
	s.MustKubectl(t, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: p}\nspec: {cidr: 10.0.0.0/8}\n", "apply", "-f", "-")
	program = filepath.Join(t.TempDir(), "muslin-controller")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "../../../cmd/controller")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	makePods(t, s, n)
	makeAddresses(t, s, n)
	return s, program
}

// footprint is what one run of the controller took; memory in MB.
type footprint struct {
	firstSurvey time.Duration
	peak, end   float64
}

// runBeside runs the controller for two surveys.
func runBeside(t testing.TB, s *kubetest.Server, program string, n int) footprint {
	t.Helper()
	cmd := s.Exec(program)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(s.Dir, "kubeconfig"), "POD_NAME=bench")
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	began := time.Now()
	m := footprint{firstSurvey: awaitSurvey(t, s, n).Sub(began)}
	time.Sleep(surveyAtMost + 10*time.Second) // another one, and the collector of Go's garbage
	m.peak, m.end = memoryOf(cmd.Process.Pid, "VmHWM"), memoryOf(cmd.Process.Pid, "VmRSS")
	if m.end == 0 {
		t.Fatal("the controller has ended")
	}
	return m
}

// makeAddresses makes a node, a block and an affinity for each group of pods,
// and a handle for each pod.
func makeAddresses(b testing.TB, s *kubetest.Server, n int) {
	b.Helper()
	store, err := kubestore.New(s.Config(), kubestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	o, err := NewObjects(s.Config(), nil)
	if err != nil {
		b.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for node := range (n + podsPerNode - 1) / podsPerNode {
		g.Go(func() error {
			name := model.NodeName(fmt.Sprintf("node-%d", node))
			body := fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Node","metadata":{"name":%q}}`, name)
			if err := o.client.Post().AbsPath("/api/v1/nodes").SetHeader("Content-Type", jsonType).Body(body).Do(b.Context()).Error(); err != nil {
				return err
			}
			cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(node >> 10), byte(node >> 2), byte(node << 6)}), 26)
			block, err := ipam.NewBlock(cidr, ipam.HostAffinity(name), time.Now())
			if err != nil {
				return err
			}
			for i := node * podsPerNode; i < min(n, (node+1)*podsPerNode); i++ {
				id := fmt.Sprintf("k8s-pod-network.%064x", i)
				block.Assign(1, ipam.Attribute{Handle: id, Owner: map[string]string{
					"node": string(name), "namespace": "default", "pod": podName(i), "timestamp": time.Now().UTC().String(),
				}}, nil)
				if _, err := store.Handles().Create(b.Context(), ipam.Handle{ID: id, Blocks: map[netip.Prefix]int{cidr: 1}}); err != nil {
					return err
				}
			}
			if _, err := store.Blocks().Create(b.Context(), block); err != nil {
				return err
			}
			_, err = store.Affinities().Create(b.Context(), ipam.Affinity{Node: name, CIDR: cidr, State: model.BlockConfirmed, Type: "host"})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

// awaitSurvey waits until the controller's metrics count n addresses.
func awaitSurvey(b testing.TB, s *kubetest.Server, n int) time.Time {
	b.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: s.Dial, DisableKeepAlives: true}}
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		answer, err := client.Get("http://127.0.0.1:9110/metrics")
		if err != nil {
			continue
		}
		text, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		sum := 0
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, "ipam_allocations_in_use{") {
				_, value, _ := strings.Cut(line, "} ")
				k, _ := strconv.Atoi(strings.TrimSpace(value))
				sum += k
			}
		}
		if sum == n {
			return time.Now()
		}
	}
	b.Fatalf("the controller has not counted %d addresses", n)
	return time.Time{}
}
