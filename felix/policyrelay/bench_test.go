package policyrelay

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
	"google.golang.org/protobuf/proto"
)

var (
	benchPods  = flag.Int("relay-pods", 100_000, "pods of a benchmark's cluster")
	benchNodes = flag.Int("relay-nodes", 5_000, "nodes of it, each a subscriber")
)

const needsOfNode = 25

// benchCluster has four pods of one app in each namespace, and as many nodes as
// subscribe.
func benchCluster(pods, nodes int) model.PolicyView {
	v := model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{}}
	var list []*model.PolicyPod
	for i := range pods {
		ns := fmt.Sprint("ns-", i/40)
		v.Namespaces[ns] = map[string]string{"kubernetes.io/metadata.name": ns}
		list = append(list, &model.PolicyPod{
			Namespace: ns, Name: fmt.Sprintf("app-%d-7d9c6b8f5-%05d", i%4, i), Node: model.NodeName(fmt.Sprint("node-", i%nodes)), ServiceAccount: "default",
			Labels: map[string]string{"app": fmt.Sprint("app-", i%4), "pod-template-hash": "7d9c6b8f5"}, Created: time.Unix(int64(i), 0),
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})},
		})
	}
	v.Pods = model.SortedOf(list)
	return v
}

// benchNeeds are those of a node: all pods of 25 namespaces.
func benchNeeds(node, pods int) []policy.Need {
	var out []policy.Need
	for i := range needsOfNode {
		out = append(out, policy.Need{Selector: fmt.Sprintf(`(projectcalico.org/orchestrator == "k8s" && projectcalico.org/namespace == "ns-%d")`, (node*7+i*31)%(pods/40))})
	}
	slices.SortFunc(out, policy.Need.Compare)
	return slices.Compact(out)
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkIndex is one relay's work for one pod that changes: until all who need it have
// it encoded. It reports the time until the index is ready with all subscribers, its
// heap, and what is sent to one node at first and for each change of the cluster.
func BenchmarkIndex(b *testing.B) {
	view := benchCluster(*benchPods, *benchNodes)
	before := heap()
	start := time.Now()
	x := NewIndex()
	x.Update(view)
	ready := time.Since(start)
	var subs []*Subscription
	first := 0
	for i := range *benchNodes {
		s := x.Subscribe("n1", true)
		if err := s.Need(benchNeeds(i, *benchPods), 1, nil); err != nil {
			b.Fatal(err)
		}
		first += drain(b, s)
		subs = append(subs, s)
	}
	size := heap() - before
	pods := slices.Collect(view.Pods.All())
	sent, took := 0, make([]time.Duration, b.N)
	b.ResetTimer()
	for i := range b.N {
		start := time.Now()
		p := *pods[i*7919%len(pods)]
		p.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)})}
		view.Pods = view.Pods.With([]*model.PolicyPod{&p}, nil)
		x.Update(view)
		for _, s := range subs {
			select {
			case <-s.wakes:
				sent += drain(b, s)
			default:
			}
		}
		took[i] = time.Since(start)
	}
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1e3, "ms/p50")
	b.ReportMetric(took[(len(took)-1)*99/100].Seconds()*1e3, "ms/p99")
	b.ReportMetric(ready.Seconds(), "s/ready")
	b.ReportMetric(float64(size)/1e6, "MB/relay")
	b.ReportMetric(float64(first)/float64(len(subs)), "B/first")
	b.ReportMetric(float64(sent)/float64(len(subs))/float64(b.N), "B/node/op")
	runtime.KeepAlive(pods)
}

func drain(b *testing.B, s *Subscription) (size int) {
	b.Helper()
	for {
		out, err := s.Next()
		if err != nil {
			b.Fatal(err)
		}
		if out == nil {
			return size
		}
		size += proto.Size(out)
	}
}

// BenchmarkAgent is what an agent has in memory of what it needs, with clusters of
// different size.
func BenchmarkAgent(b *testing.B) {
	for _, pods := range []int{*benchPods / 10, *benchPods} {
		b.Run(fmt.Sprint(pods), func(b *testing.B) {
			view := benchCluster(pods, *benchNodes)
			x := NewIndex()
			x.Update(view)
			for b.Loop() {
				before := heap()
				s := x.Subscribe("n1", true)
				r := newReceiver("node-1")
				if err := subscribe(s, r.need(benchNeeds(1, pods))); err != nil {
					b.Fatal(err)
				}
				for {
					out, err := s.Next()
					if err != nil {
						b.Fatal(err)
					}
					if out == nil {
						break
					}
					text, err := proto.Marshal(out)
					if err != nil {
						b.Fatal(err)
					}
					in := new(relayrpc.Response)
					if err := proto.Unmarshal(text, in); err != nil {
						b.Fatal(err)
					}
					if _, err := r.receive(in); err != nil {
						b.Fatal(err)
					}
				}
				s.Close()
				b.ReportMetric(float64(heap()-before)/1e6, "MB/agent")
				b.ReportMetric(float64(r.view.Pods.Len()), "pods/agent")
			}
		})
	}
}

// BenchmarkClientsBack has 200 agents lose their relay at once and come back: the time
// until all of them have all there is.
func BenchmarkClientsBack(b *testing.B) {
	const clients = 200
	x := NewIndex()
	x.Update(benchCluster(*benchPods, *benchNodes))
	cert, text, err := NewCertificate()
	if err != nil {
		b.Fatal(err)
	}
	at := make(chan Replica, 1)
	up := func() func() {
		r, stop := serve(b, &Server{Index: x, Certificate: cert, Logger: slog.New(slog.DiscardHandler), Review: func(_ context.Context, token string) (model.NodeName, error) {
			return model.NodeName(token), nil
		}}, text)
		at <- r
		return stop
	}
	stop := up()
	var all []*Client
	for i := range clients {
		node := fmt.Sprint("node-", i)
		c := &Client{Node: model.NodeName(node), Token: func() (string, error) { return node, nil }, Logger: slog.New(slog.DiscardHandler), Replicas: func(context.Context) (map[string]Replica, error) {
			r := <-at
			at <- r
			return map[string]Replica{"one": r}, nil
		}}
		c.Need(benchNeeds(i, *benchPods))
		b.Cleanup(run(b, c))
		all = append(all, c)
	}
	wait := func(lost bool) {
		for _, c := range all {
			for {
				v, changed := c.View()
				if len(v.Known) > 0 && v.Lost.IsZero() != lost {
					break
				}
				<-changed
			}
		}
	}
	wait(false)
	steady := heap()
	for b.Loop() {
		stop()
		wait(true)
		<-at
		stop = up()
		wait(false)
	}
	b.ReportMetric(float64(heap())/float64(steady), "heap/steady")
}
