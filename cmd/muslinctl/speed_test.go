package main

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/model"
)

// BenchmarkGetPools compares a get with kubectl's, taken in turns. It is a
// benchmark and judges nothing: run it on a machine that is at rest.
func BenchmarkGetPools(b *testing.B) {
	server.MustKubectl(b, pools(5), "apply", "-f", "-")
	defer server.MustKubectl(b, pools(5), "delete", "-f", "-")
	var ours, theirs []time.Duration
	once := func(args ...string) time.Duration {
		cmd := server.Exec(args[0], append(args[1:], "--kubeconfig="+filepath.Join(server.Dir, "kubeconfig"))...)
		start := time.Now()
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v: %s", args, err, out)
		}
		return time.Since(start)
	}
	kubectl, err := exec.LookPath("kubectl") // the real one, as users have it
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		ours = append(ours, once(filepath.Join(bin, "real"), "get", "ippools"))
		theirs = append(theirs, once(kubectl, "get", "ippools.projectcalico.org"))
	}
	b.ReportMetric(float64(median(ours).Microseconds())/1000, "ms/muslinctl")
	b.ReportMetric(float64(median(theirs).Microseconds())/1000, "ms/kubectl")
	b.ReportMetric(float64(median(ours))/float64(median(theirs)), "ratio")
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func pools(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "---\napiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: speed-%d}\nspec: {cidr: 10.%d.0.0/16}\n", i, 80+i)
	}
	return b.String()
}

// BenchmarkLargeIPAM looks at 10,000 blocks with 100,000 addresses.
func BenchmarkLargeIPAM(b *testing.B) {
	const blocks, each = 10000, 10
	fill(b, blocks, each)
	for _, args := range [][]string{{"ipam", "show", "--show-blocks"}, {"ipam", "check"}} {
		b.Run(strings.Join(args, " "), func(b *testing.B) {
			var most int64
			for b.Loop() {
				cmd := server.Exec(filepath.Join(bin, "real"), append(args, "--kubeconfig="+filepath.Join(server.Dir, "kubeconfig"))...)
				out, err := cmd.CombinedOutput()
				if code := cmd.ProcessState.ExitCode(); err != nil && code != 4 {
					b.Fatalf("%v: %s", err, out[:min(len(out), 2000)])
				}
				if args[1] == "show" && bytes.Count(out, []byte("\n")) < blocks {
					b.Fatalf("too few rows: %d", bytes.Count(out, []byte("\n")))
				}
				most = max(most, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
			}
			b.ReportMetric(float64(most)/1024, "MB-rss")
		})
	}
}

// fill writes a pool, nodes, blocks with addresses, and affinities.
func fill(b *testing.B, blocks, each int) {
	b.Helper()
	server.MustKubectl(b, "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: large}\nspec: {cidr: 10.128.0.0/9, blockSize: 26}\n", "create", "-f", "-")
	const nodes = 100
	var y strings.Builder
	for i := range nodes {
		fmt.Fprintf(&y, "---\napiVersion: v1\nkind: Node\nmetadata: {name: n%d}\n", i)
	}
	server.MustKubectl(b, y.String(), "create", "-f", "-")
	store, err := kubestore.New(server.Config(), kubestore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(16)
	for i := range blocks {
		g.Go(func() error {
			return putBlock(b.Context(), store, i, each, model.NodeName(fmt.Sprintf("n%d", i%nodes)))
		})
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
}

func putBlock(ctx context.Context, store *kubestore.Store, i, each int, node model.NodeName) error {
	base := netip.AddrFrom4([4]byte{10, byte(128 + i>>10), byte(i >> 2), byte(i << 6)})
	cidr := netip.PrefixFrom(base, 26)
	block, err := ipam.NewBlock(cidr, ipam.HostAffinity(node), time.Now())
	if err != nil {
		return err
	}
	for o := range each {
		// Without a pod's name nobody misses the pod.
		owner := ipam.Attribute{Handle: fmt.Sprintf("k8s-pod-network.%08x%056x", i, o), Owner: map[string]string{"node": string(node), "timestamp": "2026-08-22 10:00:01.1 +0000 UTC", "note": "address of a workload"}}
		if got := block.Assign(1, owner, nil); len(got) != 1 {
			return fmt.Errorf("block %s is full at %d", cidr, o)
		}
	}
	if _, err := store.Blocks().Create(ctx, block); err != nil {
		return err
	}
	_, err = store.Affinities().Create(ctx, ipam.Affinity{Node: node, CIDR: cidr, State: model.BlockConfirmed, Type: "host"})
	return err
}
