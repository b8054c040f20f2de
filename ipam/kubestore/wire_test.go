package kubestore_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/model"
)

var update = flag.Bool("update", false, "write testdata/wire.txt anew")

// recorder keeps what is written to the API server, which answers itself.
type recorder struct {
	next  http.RoundTripper
	mu    sync.Mutex
	lines []string
}

// RoundTrip notes a write.
func (r *recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		req.Body = io.NopCloser(bytes.NewReader(body))
		r.mu.Lock()
		r.lines = append(r.lines, req.Method+" "+strings.TrimPrefix(req.URL.Path, "/apis/projectcalico.org/v3/")+"\n  "+string(body))
		r.mu.Unlock()
	}
	return r.next.RoundTrip(req)
}

// take gives the writes since the last time; those that go out together are
// sorted.
func (r *recorder) take(together bool) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.lines
	r.lines = nil
	if together {
		slices.Sort(out)
	}
	return out
}

// masks are the parts of a write that differ from run to run.
var masks = []struct {
	find *regexp.Regexp
	put  string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UID"},
	{regexp.MustCompile(`"resourceVersion":"\d+"`), `"resourceVersion":"RV"`},
	{regexp.MustCompile(`,"managedFields":\[\{\}\]`), ``},
	{regexp.MustCompile(`"affinityClaimTime":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"`), `"affinityClaimTime":"TIME"`},
	{regexp.MustCompile(`"releasedAt":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"`), `"releasedAt":"TIME"`},
}

var (
	sequence = regexp.MustCompile(`\b\d{19}\b`)
	ofBlock  = regexp.MustCompile(`"cidr":"[^"]+"`)
)

// masked replaces what differs; sequence numbers become their distance from the
// block's first.
func masked(text string) string {
	for _, m := range masks {
		text = m.find.ReplaceAllString(text, m.put)
	}
	first := map[string]int64{}
	var out strings.Builder
	for line := range strings.Lines(text) {
		block := ofBlock.FindString(line)
		out.WriteString(sequence.ReplaceAllStringFunc(line, func(digits string) string {
			n, _ := strconv.ParseInt(digits, 10, 64)
			if first[block] == 0 {
				first[block] = n
			}
			return fmt.Sprintf("SEQ+%d", n-first[block])
		}))
	}
	return out.String()
}

// TestWireBytes holds every byte that is written on the way of an address, from
// the claim of its block to the block's end, to testdata/wire.txt: the fields
// in Calico's order and spelling, with Calico's nulls, empty lists and absent
// fields, and its protocol of deletes.
func TestWireBytes(t *testing.T) {
	wipe(t)
	rec := &recorder{}
	cfg := server.Config()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper { rec.next = next; return rec })
	s, err := kubestore.New(cfg, kubestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a := alloc.New("node1.example", s)
	a.SetPools([]model.Pool{pool("p4", "10.244.1.0/30", 30), pool("p6", "fd00:244:1::/126", 126)})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- a.Run(ctx) }()
	<-a.Ready()
	var out strings.Builder
	step := func(name string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		together := strings.HasPrefix(name, "assign") || strings.HasPrefix(name, "release")
		fmt.Fprintf(&out, "# %s\n%s\n\n", name, strings.Join(rec.take(together), "\n"))
	}
	step("claim an IPv4 block", a.EnsureBlock(t.Context(), model.IPv4))
	step("claim an IPv6 block", a.EnsureBlock(t.Context(), model.IPv6))
	assign := func(handle string, r alloc.Request) error {
		r.Handle = handle
		_, err := a.Assign(t.Context(), r)
		return err
	}
	const then = "2026-08-22 10:00:01.1 +0000 UTC"
	web := map[string]string{"pod": "web", "namespace": "default", "timestamp": then}
	tunnel := map[string]string{"type": "vxlanTunnelAddress", "timestamp": then}
	step("assign one of each family", assign("k8s-pod-network.Cafe", alloc.Request{V4: 1, V6: 1, Attrs: web}))
	step("assign a tunnel's", assign("vxlan-tunnel-addr-node1.example", alloc.Request{V4: 1, Use: model.UseTunnel, Attrs: tunnel}))
	step("release the first", a.Release(t.Context(), "k8s-pod-network.Cafe"))
	a.SetConfig(alloc.Config{AutoAllocateBlocks: true, CooldownSeconds: 60})
	step("release the second, with a cooldown", a.Release(t.Context(), "vxlan-tunnel-addr-node1.example"))
	stop() // it would take its blocks back
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	step("give the block away", alloc.ReleaseAffinity(t.Context(), s, "node1.example", prefix("10.244.1.0/30"), alloc.AffinityRelease{}))
	step("give the empty one away", alloc.ReleaseAffinity(t.Context(), s, "node1.example", prefix("fd00:244:1::/126"), alloc.AffinityRelease{}))

	golden := filepath.Join("testdata", "wire.txt")
	got := masked(out.String())
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
