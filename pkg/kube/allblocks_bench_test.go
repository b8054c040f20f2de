package kube_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// BenchmarkAllBlocks is what an agent that computes routes reads from the API server in
// clusters of some sizes, whose nodes have a block of 64 addresses with 60 pods: bytes on
// its connections (TLS, lists compressed), beside those of an agent that does not compute
// routes. list: until it knows all blocks; pod: for one that starts on another node.
// -benchtime 1x is enough.
func BenchmarkAllBlocks(b *testing.B) {
	s := kubetest.StartWithCRDs(b)
	s.Install(b)
	client, made := rawClientOf(b, s), 0
	for _, nodes := range []int{250, 1000, 5000} {
		b.Run(fmt.Sprint(nodes), func(b *testing.B) {
			var g errgroup.Group
			g.SetLimit(16)
			for i := made; i < nodes; i++ {
				g.Go(func() error { return makeBlock(b.Context(), client, i) })
			}
			if err := g.Wait(); err != nil {
				b.Fatal(err)
			}
			made = max(made, nodes)
			for b.Loop() {
				none := blocksRead(b, s, client, 0)
				all := blocksRead(b, s, client, nodes)
				b.ReportMetric(float64(all.list-none.list)/float64(nodes), "B/node")
				b.ReportMetric(float64(all.list-none.list), "B-of-lists")
				b.ReportMetric(float64(all.pod), "B/pod")
			}
		})
	}
}

type volume struct{ list, pod int64 } // bytes

// blocksRead runs a Cluster that watches the blocks of all nodes, unless nodes is 0.
func blocksRead(b *testing.B, s *kubetest.Server, client *rest.RESTClient, nodes int) (v volume) {
	b.Helper()
	cfg, read := s.Config(), new(atomic.Int64)
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		return &counted{c, read}, err
	}
	c, err := kube.New(cfg, kube.Options{
		Node: "far-0", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)), AllBlocksWhile: func(model.Snapshot) bool { return nodes > 0 },
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	for !c.Snapshot().Synced || len(c.AllBlocks().List) < nodes {
		time.Sleep(10 * time.Millisecond)
	}
	v.list = read.Load()
	if nodes > 0 {
		const pods = 20
		for i := range pods {
			if err := addPod(b.Context(), client, nodes-1, i); err != nil {
				b.Fatal(err)
			}
		}
		// What the server has to say it has said when it is quiet.
		for last := int64(-1); last != read.Load(); time.Sleep(2 * time.Second) {
			last = read.Load()
		}
		v.pod = (read.Load() - v.list) / pods
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
	return v
}

type counted struct {
	net.Conn
	read *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

const blocksPath = "/apis/projectcalico.org/v3/"

func farBlock(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(64 + i/1024), byte(i / 4), byte(i % 4 * 64)}), 26)
}

func makeBlock(ctx context.Context, client *rest.RESTClient, i int) error {
	cidr := farBlock(i)
	name := fmt.Sprintf("far-%d-%s", i, dashed(cidr))
	affinity := map[string]any{
		"apiVersion": "projectcalico.org/v3", "kind": "BlockAffinity", "metadata": map[string]any{"name": name},
		"spec": map[string]any{"cidr": cidr.String(), "node": fmt.Sprintf("far-%d", i), "state": "confirmed", "type": "host", "deleted": false},
	}
	if err := post(ctx, client, "blockaffinities", affinity); err != nil {
		return err
	}
	allocations, attributes, free := make([]any, 64), []any{}, []int{}
	for n := range 64 {
		if n >= 60 {
			free = append(free, n)
			continue
		}
		allocations[n] = n
		attributes = append(attributes, map[string]any{
			"handle_id": fmt.Sprintf("k8s-pod-network.%064d", i*64+n),
			"secondary": map[string]string{"namespace": "production", "node": fmt.Sprintf("far-%d", i), "pod": fmt.Sprintf("frontend-7d9c5b7f4-%05d", n), "timestamp": "2026-01-01 00:00:00 +0000 UTC"},
		})
	}
	return post(ctx, client, "ipamblocks", map[string]any{
		"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": map[string]any{"name": dashed(cidr)},
		"spec": map[string]any{
			"cidr": cidr.String(), "affinity": fmt.Sprintf("host:far-%d", i), "strictAffinity": false, "deleted": false,
			"allocations": allocations, "attributes": attributes, "unallocated": free, "sequenceNumber": 1,
		},
	})
}

func dashed(p netip.Prefix) string {
	a := p.Addr().As4()
	return fmt.Sprintf("%d-%d-%d-%d-%d", a[0], a[1], a[2], a[3], p.Bits())
}

func post(ctx context.Context, client *rest.RESTClient, kind string, object any) error {
	body, err := json.Marshal(object)
	if err != nil {
		return err
	}
	return client.Post().AbsPath(blocksPath + kind).Body(body).Do(ctx).Error()
}

// addPod writes a block as an ADD or a DEL on its node does.
func addPod(ctx context.Context, client *rest.RESTClient, node, i int) error {
	patch := fmt.Sprintf(`{"spec": {"sequenceNumber": %d, "unallocated": [%d]}}`, time.Now().UnixNano(), 60+i%4)
	return client.Patch("application/merge-patch+json").AbsPath(blocksPath + "ipamblocks/" + dashed(farBlock(node))).Body([]byte(patch)).Do(ctx).Error()
}
