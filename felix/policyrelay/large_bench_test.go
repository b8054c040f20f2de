package policyrelay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	authentication "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

var (
	largePods   = flag.Int("large-pods", 4_000, "pods of the cluster of BenchmarkLargeCluster; a twentieth as many nodes, each a subscriber")
	largeEvents = flag.Duration("large-events", 5*time.Second, "how long its pods change, 200 times a second")
)

const (
	eventsPerSecond = 200
	agentsBack      = 200
	relayAddress    = "127.0.0.1:5473"
	systemNamespace = "muslin-system"
)

// BenchmarkLargeCluster is a real controller with a real API server, and an agent's stream to it for each
// of the cluster's nodes: memory and readiness of the relay, what a change of a pod costs and how soon
// it is with those who need it, agents that come back, and what policy takes in an agent's memory.
func BenchmarkLargeCluster(b *testing.B) {
	program := filepath.Join(kubetest.Programs(b, "./cmd/controller"), "controller")
	for b.Loop() {
		l := newLarge(b, *largePods)
		began := time.Now()
		l.write(b)
		first := l.firstPods()
		l.run(b, func(pod int) bool { return first[pod] })
		r := l.startRelay(b, program)
		small := l.agentHeap(b, r)
		r.end()
		l.run(b, func(pod int) bool { return !first[pod] })
		l.lend(b)
		b.Logf("%d pods on %d nodes, %d namespaces, %d policies written in %.0f s", l.pods, l.nodes(), l.namespaces(), l.namespaces()*policiesOfEach, time.Since(began).Seconds())

		watches := l.podWatches(b)
		r = l.startRelay(b, program)
		b.ReportMetric(r.ready.Seconds(), "s/ready")
		b.ReportMetric(r.cpuOfStart.Seconds(), "s-cpu/ready")
		full := l.agentHeap(b, r)
		b.ReportMetric(full.live, "MB/agent")
		b.ReportMetric(full.live/small.live, fmt.Sprintf("x-agent-of-%d", len(first)))
		b.ReportMetric(full.most, "MB/agent-most")

		streams := l.subscribe(b, r)
		b.ReportMetric(float64(l.podWatches(b)-watches), "pod-watches")
		l.change(b, r, streams)
		l.comeBack(b, r)
		live, most := r.heap(b)
		b.ReportMetric(live, "MB/relay")
		b.ReportMetric(most, "MB/relay-most")
		b.ReportMetric(r.status(b, "VmRSS"), "MB/relay-rss")
		r.end()
	}
	b.ReportMetric(0, "ns/op")
}

// firstPods are a tenth of the pods, all in the namespaces of the first node's pods among them.
func (l *large) firstPods() map[int]bool {
	out := map[int]bool{}
	for number := range podsOfNode {
		first := number * l.nodes() / podsOfNamespace * podsOfNamespace
		for pod := first; pod < first+podsOfNamespace; pod++ {
			out[pod] = true
		}
	}
	for pod := 0; len(out) < l.pods/10; pod++ {
		out[pod] = true
	}
	return out
}

// relayProcess is a controller in the server's network namespace.
type relayProcess struct {
	cmd   *exec.Cmd
	log   string
	at    Replica
	ready time.Duration // from its start until an agent had all that it needs

	cpuOfStart time.Duration // what it had of the processors by then
}

func (l *large) startRelay(b *testing.B, program string) *relayProcess {
	b.Helper()
	token := l.token(b, "muslin-controller", &authentication.TokenRequest{})
	kubeconfig := filepath.Join(b.TempDir(), "kubeconfig")
	kubetest.WithToken(b, filepath.Join(l.s.Dir, "kubeconfig"), kubeconfig, token)
	log, err := os.CreateTemp(b.TempDir(), "controller")
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	agent := l.agentToken(b, 0)
	r := &relayProcess{cmd: l.s.Exec(program), log: log.Name()}
	r.cmd.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig, "POD_NAME=one", "MUSLIN_RELAY_ADDR="+relayAddress, "GODEBUG=gctrace=1")
	r.cmd.Stdout, r.cmd.Stderr = log, log
	began := time.Now()
	if err := r.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if r.end(); b.Failed() {
			text, _ := os.ReadFile(r.log)
			b.Logf("controller: %s", text[max(0, len(text)-4000):])
		}
	})
	r.at = l.find(b)
	s := &subscriber{l: l, node: 0, token: agent}
	go s.run(b.Context(), r.at)
	<-s.whole()
	r.ready, r.cpuOfStart = time.Since(began), r.cpu(b)
	return r
}

// end kills it; nsenter has become the program.
func (r *relayProcess) end() {
	if r.cmd.ProcessState == nil {
		_ = r.cmd.Process.Kill()
		_ = r.cmd.Wait()
	}
}

// find waits until a relay can be found that listens.
func (l *large) find(b *testing.B) Replica {
	b.Helper()
	d, err := NewDirectory(l.s.Config(), slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	began := time.Now()
	for ; ; time.Sleep(20 * time.Millisecond) {
		found, err := d.Replicas(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if r, is := found["one"]; is && r.Since.After(l.found) {
			l.found = r.Since
			return r
		}
		if time.Since(began) > 10*time.Minute {
			b.Fatal("no relay after ten minutes")
		}
	}
}

func (l *large) token(b *testing.B, account string, q *authentication.TokenRequest) string {
	b.Helper()
	out, err := l.client.CoreV1().ServiceAccounts(systemNamespace).CreateToken(b.Context(), account, q, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	return out.Status.Token
}

func (l *large) agentToken(b *testing.B, node int) string {
	b.Helper()
	return l.token(b, "muslin-agent", &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		Audiences: []string{Audience}, BoundObjectRef: &authentication.BoundObjectReference{APIVersion: "v1", Kind: "Node", Name: nodeName(node)},
	}})
}

var traced = regexp.MustCompile(`(?m)^gc \d+ @.* (\d+)->(\d+)->(\d+) MB, `)

// heap gives what was live after the last garbage collection, and the most that there was at one, in MB.
func (r *relayProcess) heap(b *testing.B) (live, most float64) {
	b.Helper()
	text, err := os.ReadFile(r.log)
	if err != nil {
		b.Fatal(err)
	}
	for _, m := range traced.FindAllSubmatch(text, -1) {
		at, _ := strconv.ParseFloat(string(m[2]), 64)
		live, _ = strconv.ParseFloat(string(m[3]), 64)
		most = max(most, at)
	}
	return live, most
}

// status gives a field of /proc/PID/status in MB.
func (r *relayProcess) status(b *testing.B, field string) float64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", r.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field+":")
	kB, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB * 1024 / 1e6
}

// cpu gives what the process has had of the processors.
func (r *relayProcess) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.cmd.Process.Pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err := errors.Join(err, err2); err != nil {
		b.Fatal(err)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// podWatches counts the watches of pods that the server has.
func (l *large) podWatches(b *testing.B) (count int) {
	b.Helper()
	text, err := l.client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="pods"`) && strings.Contains(line, `verb="WATCH"`) {
			n, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]))
			if err != nil {
				b.Fatal(err)
			}
			count += n
		}
	}
	return count
}

// dial reaches the relay, with the keepalives that gRPC's own dialer has: the kernel's, of hours.
func (l *large) dial(ctx context.Context, address string) (net.Conn, error) {
	c, err := l.s.Dial(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return c, c.(*net.TCPConn).SetKeepAlive(false)
}

// counted counts what goes over a connection, TLS and all.
type counted struct {
	net.Conn
	read, written *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read.Add(int64(n))
	return n, err
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// subscriber is an agent's stream that keeps nothing of what it gets.
type subscriber struct {
	l             *large
	node          int
	token         string
	read, written atomic.Int64
	complete      chan struct{}
	once          sync.Once

	delays, ofRelay []time.Duration // of each change since its write began, and since the server told of it
}

func (s *subscriber) whole() <-chan struct{} {
	s.once.Do(func() { s.complete = make(chan struct{}) })
	return s.complete
}

// run follows a relay, as a Client does, and tries again until it has answered once.
func (s *subscriber) run(ctx context.Context, at Replica) {
	done := s.whole()
	for pause := leastPause; ctx.Err() == nil; pause = min(2*pause, mostPause) {
		s.follow(ctx, at)
		select {
		case <-done:
			return
		case <-time.After(pause/2 + rand.N(pause)):
		}
	}
}

func (s *subscriber) follow(ctx context.Context, at Replica) {
	trust, err := at.trust()
	if err != nil {
		return
	}
	conn, err := grpc.NewClient("passthrough:///"+at.Address, grpc.WithTransportCredentials(credentials.NewTLS(trust)),
		grpc.WithPerRPCCredentials(bearer(func() (string, error) { return s.token, nil })), grpc.WithNoProxy(),
		grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			c, err := s.l.dial(ctx, address)
			return counted{c, &s.read, &s.written}, err
		}))
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	stream, err := relayrpc.NewRelayClient(conn).Watch(ctx)
	if err != nil {
		return
	}
	r := newReceiver(model.NodeName(nodeName(s.node)))
	first := r.need(s.l.needs(s.node))
	first.Sums, first.Acknowledges = r.digests(), true
	if err := stream.Send(first); err != nil {
		return
	}
	for whole := false; ; {
		in, err := stream.Recv()
		if err != nil {
			return
		}
		s.l.measure(s, in, time.Now())
		if in.Number != 0 && stream.Send(&relayrpc.Request{Acknowledged: in.Number}) != nil {
			return
		}
		if in.Complete && !whole {
			whole = true
			close(s.complete)
		}
	}
}

// subscribe has each node's agent come, all at once, and waits until all have all that they need.
func (l *large) subscribe(b *testing.B, r *relayProcess) []*subscriber {
	out := make([]*subscriber, l.nodes())
	each(b, l.nodes(), always, func(_ context.Context, node int) error {
		out[node] = &subscriber{l: l, node: node, token: l.agentToken(b, node)}
		return nil
	})
	began, cpu := time.Now(), r.cpu(b)
	for _, s := range out {
		go s.run(b.Context(), r.at)
	}
	read := int64(0)
	for _, s := range out {
		<-s.whole()
		read += s.read.Load()
	}
	b.ReportMetric(time.Since(began).Seconds(), "s/all-subscribed")
	b.Logf("all %d subscribed with %.1f s of the relay's CPU", len(out), (r.cpu(b) - cpu).Seconds())
	b.ReportMetric(float64(read)/float64(len(out)), "B/first")
	return out
}

// measure notes how long pods that changed were on their way.
func (l *large) measure(s *subscriber, in *relayrpc.Response, now time.Time) {
	for _, p := range in.Put {
		pod, err := strconv.Atoi(strings.TrimPrefix(p.Name, "pod-"))
		if err != nil || pod >= l.pods {
			continue
		}
		if at := l.written[pod].Load(); at != 0 {
			s.delays = append(s.delays, now.Sub(l.epoch)-time.Duration(at))
		}
		if at := l.watched[pod].Load(); at != 0 {
			s.ofRelay = append(s.ofRelay, now.Sub(l.epoch)-time.Duration(at))
		}
	}
}

// change has pods change for a while, each once: of four one gets another label, two another address in its
// status, one another address in its block.
func (l *large) change(b *testing.B, r *relayProcess, streams []*subscriber) {
	b.Helper()
	count := min(int(largeEvents.Seconds()*eventsPerSecond), l.pods)
	stop := l.watch(b)
	read, cpu, began := l.read(streams), r.cpu(b), time.Now()
	var g errgroup.Group
	g.SetLimit(writers)
	for n := range count {
		time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / eventsPerSecond)))
		pod := n * 7919 % l.pods
		g.Go(func() error {
			l.written[pod].Store(int64(time.Since(l.epoch)))
			return l.changePod(b.Context(), pod, n)
		})
	}
	if err := g.Wait(); err != nil {
		b.Logf("not all changes were written: %v", err)
	}
	took := time.Since(began)
	b.ReportMetric((r.cpu(b)-cpu).Seconds()/took.Seconds(), "cores/relay")
	time.Sleep(time.Second)
	stop()
	rate := float64(count) / took.Seconds()
	b.ReportMetric(rate, "events/s")
	b.ReportMetric(float64(l.read(streams)-read)/float64(len(streams))/float64(count)*40, "B/s-agent-at-40")
	l.report(b, streams)
}

func (l *large) read(streams []*subscriber) (sum int64) {
	for _, s := range streams {
		sum += s.read.Load()
	}
	return sum
}

func (l *large) report(b *testing.B, streams []*subscriber) {
	var delays, ofRelay []time.Duration
	for _, s := range streams {
		delays, ofRelay = append(delays, s.delays...), append(ofRelay, s.ofRelay...)
	}
	slices.Sort(delays)
	slices.Sort(ofRelay)
	for name, list := range map[string][]time.Duration{"written": delays, "watched": ofRelay} {
		if len(list) == 0 {
			b.Fatal("no change came to anybody")
		}
		b.ReportMetric(list[len(list)/2].Seconds()*1e3, "ms/"+name+"-p50")
		b.ReportMetric(list[(len(list)-1)*99/100].Seconds()*1e3, "ms/"+name+"-p99")
	}
	b.Logf("%d messages of changes came", len(delays))
}

// watch notes when the server tells a watch of pods of each change, until stop.
func (l *large) watch(b *testing.B) (stop func()) {
	b.Helper()
	pods := l.client.CoreV1().Pods("")
	list, err := pods.List(b.Context(), metav1.ListOptions{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	w, err := pods.Watch(b.Context(), metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.ResultChan() {
			if p, is := e.Object.(*corev1.Pod); is {
				if pod, err := strconv.Atoi(strings.TrimPrefix(p.Name, "pod-")); err == nil {
					l.watched[pod].Store(int64(time.Since(l.epoch)))
				}
			}
		}
	}()
	return func() { w.Stop(); <-done }
}

// changePod is the n-th change.
func (l *large) changePod(ctx context.Context, pod, n int) error {
	node, number := l.node(pod)
	p := l.object(pod)
	pods := l.client.CoreV1().Pods(p.Namespace)
	var err error
	switch n % 4 {
	case 0:
		_, err = pods.Patch(ctx, p.Name, types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"labels":{"version":"%d"}}}`, n%10), metav1.PatchOptions{})
	case 1, 2:
		_, err = pods.UpdateStatus(ctx, at(p, addressOf(node, 2*podsOfNode+number)), metav1.UpdateOptions{})
	default:
		var body []byte
		if body, err = json.Marshal(map[string]any{"spec": l.block(node, l.more[node].Or(1<<number)|1<<number)}); err != nil {
			return err
		}
		err = l.crds.Patch(types.MergePatchType).AbsPath(pathOfCRDs + "ipamblocks/" + dashed(node)).Body(body).Do(ctx).Error()
	}
	return err
}

// comeBack has 200 agents lose their streams at once: the time until all have come back, and what that takes.
func (l *large) comeBack(b *testing.B, r *relayProcess) {
	var mu sync.Mutex
	var conns []net.Conn
	read, written := new(atomic.Int64), new(atomic.Int64)
	var all []*Client
	for node := range min(agentsBack, l.nodes()) {
		c := l.agentClient(r, node, l.agentToken(b, node))
		c.dial = func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := l.dial(ctx, address)
			mu.Lock()
			defer mu.Unlock()
			conns = append(conns, conn)
			return counted{conn, read, written}, err
		}
		c.Need(l.needs(node))
		b.Cleanup(run(b, c))
		all = append(all, c)
	}
	await := func(lost bool) {
		for _, c := range all {
			for v, changed := c.View(); !v.Answered || v.Lost.IsZero() == lost; v, changed = c.View() {
				<-changed
			}
		}
	}
	await(false)
	steady := r.status(b, "VmRSS")
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", r.cmd.Process.Pid), []byte("5"), 0); err != nil {
		b.Fatal(err) // VmHWM begins anew
	}
	mu.Lock()
	old := conns
	mu.Unlock()
	read.Store(0)
	written.Store(0)
	began := time.Now()
	for _, c := range old {
		_ = c.Close()
	}
	await(true)
	await(false)
	b.ReportMetric(time.Since(began).Seconds(), "s/back")
	b.ReportMetric(r.status(b, "VmHWM")/steady, "x-relay-while-back")
	b.ReportMetric(float64(read.Load())/float64(len(all)), "B/back-received")
	b.ReportMetric(float64(written.Load())/float64(len(all)), "B/back-sent")
}

func (l *large) agentClient(r *relayProcess, node int, token string) *Client {
	return &Client{
		Node: model.NodeName(nodeName(node)), Token: func() (string, error) { return token, nil }, Logger: slog.New(slog.DiscardHandler),
		Replicas: func(context.Context) (map[string]Replica, error) { return map[string]Replica{"one": r.at}, nil },
		dial:     l.dial,
	}
}

// memory is in MB: what policy has of it once all is there, and what an agent had at most on the way.
type memory struct{ live, most float64 }

// agentHeap gives what policy takes in the memory of an agent of the first node: beside one that has none.
func (l *large) agentHeap(b *testing.B, r *relayProcess) memory {
	b.Helper()
	none, with := l.agent(b, nil), l.agent(b, r)
	b.Logf("an agent without policy has %.1f MB, at most %.1f; with it %.1f, at most %.1f", none.live, none.most, with.live, with.most)
	return memory{with.live - none.live, with.most}
}

// agent runs what an agent has of the cluster, and with a relay of network policy.
func (l *large) agent(b *testing.B, r *relayProcess) memory {
	b.Helper()
	runtime.GC() // what a pool has goes with the second one
	before := float64(heap())
	most := sampled(b)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	c, err := kube.New(l.s.Config(), kube.Options{Node: model.NodeName(nodeName(0)), Policy: r != nil, PolicyOwnPods: r != nil, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	<-c.Ready()
	var engine policy.Engine
	var program policy.Program
	var union Union
	if r != nil {
		client := l.agentClient(r, 0, l.agentToken(b, 0))
		defer run(b, client)()
		defer runtime.KeepAlive(client)
		program = l.compile(c, client, &engine, &union)
	}
	out := memory{most: (most() - before) / 1e6}
	runtime.GC()
	out.live = (float64(heap()) - before) / 1e6
	runtime.KeepAlive([]any{&engine, &union, program})
	cancel()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return out
}

// compile works as an agent's loop does until all is known.
func (l *large) compile(c *kube.Cluster, client *Client, engine *policy.Engine, union *Union) policy.Program {
	pods := l.endpoints(0)
	namespaces := map[string]bool{}
	for _, e := range pods {
		namespaces[e.Namespace] = true
	}
	c.WantPolicies(namespaces)
	for {
		in := policy.Input{Self: model.NodeName(nodeName(0)), View: c.PolicyView(), Endpoints: pods, EndpointsSynced: true}
		view, changed := client.View()
		in.Known, in.View.Pods = view.Known, union.Of(in.View.Pods, view.Pods)
		program, _ := engine.Compile(in)
		if program.Complete && view.Answered && slices.Equal(program.Needs, l.needs(0)) && len(view.Known) == len(program.Needs) {
			return program
		}
		if program.Complete {
			client.Need(program.Needs)
		}
		select {
		case <-changed:
		case <-c.PolicyChanged():
		}
	}
}

// sampled looks at the heap until most is called, which gives its greatest size, garbage and all.
func sampled(b *testing.B) (most func() float64) {
	b.Helper()
	stop, out := make(chan struct{}), make(chan float64)
	go func() {
		sample, most := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}, 0.0
		for {
			metrics.Read(sample)
			most = max(most, float64(sample[0].Value.Uint64()))
			select {
			case <-stop:
				out <- most
				return
			case <-time.After(2 * time.Millisecond):
			}
		}
	}()
	return func() float64 { close(stop); return <-out }
}
