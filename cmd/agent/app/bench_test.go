package app_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/cmd/agent/app"
	"github.com/muslin-net/muslin/hack/image"
	"github.com/muslin-net/muslin/pkg/kube/kubetest"
	"github.com/muslin-net/muslin/pkg/model"
)

// envAgent makes this process an agent: the directory of its kubeconfig, socket,
// spool, log and, when it ends, CPU profile.
const envAgent = "MUSLIN_BENCH_AGENT"

// envNode is the node that it is the agent of; "bench" if it is not set.
const envNode = "MUSLIN_BENCH_NODE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envAgent); dir != "" {
		if err := runAgent(dir); err != nil {
			fmt.Fprintln(os.Stderr, "agent:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func runAgent(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	profile, err := os.Create(filepath.Join(dir, "cpu.pprof"))
	if err != nil {
		return err
	}
	defer profile.Close()
	if os.Getenv("MUSLIN_BENCH_PROFILE") != "" {
		if err := pprof.StartCPUProfile(profile); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	return app.Run(ctx, app.Config{
		Node: model.NodeName(cmp.Or(os.Getenv(envNode), "bench")), Kubeconfig: filepath.Join(dir, "kubeconfig"), HTTPAddr: "127.0.0.1:9109", ProcSys: "/proc/sys",
		Socket: filepath.Join(dir, "agent.sock"), Spool: filepath.Join(dir, "spool"), Version: "bench",
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
}

const benchObjects = `apiVersion: v1
kind: Node
metadata: {name: bench}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.77.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
`

const (
	benchSerial   = 200 // pods, one after the other
	benchParallel = 16  // at once
	benchRounds   = 6
	benchRound    = 64 // pods of a parallel round
)

// BenchmarkKubernetes runs ADD and DEL exec to exit, as a runtime does, by turns
// with Debian's ptp and host-local: the plugin's binary, a whole agent in a
// process of its own, and addresses that a real kube-apiserver has stored, on
// the same cores. Compare the two of one run; "x" are the ratios to ptp. The
// floors, in the same run, are what starting the binary and writing the two
// objects take by themselves; "floor-…-x" are both after each other to ptp's.
//
// A DEL is answered when it is recorded. Before anybody else's turn the agent
// finishes what it has recorded, and del-done/s counts that too. On a busy
// machine look at the CPU time: ours has agent and API server in it.
func BenchmarkKubernetes(b *testing.B) {
	n := newBenchNode(b)
	for _, c := range []struct {
		name             string
		parallel, rounds int
		pods             int // of a round
	}{
		{"x1", 1, benchSerial, 1},
		{"x16", benchParallel, benchRounds, benchRound},
	} {
		b.Run(c.name, func(b *testing.B) {
			done := n.profileServer(b, c.name)
			results := n.race(b, c.name, c.parallel, c.rounds*b.N, c.pods)
			report(b, results)
			done()
		})
	}
}

// benchNode is a network namespace with an API server and an agent in it.
type benchNode struct {
	server *kubetest.Server
	dir    string
	agent  int // process id
	cni    []benchPlugin
	bare   []floor
}

type benchPlugin struct{ name, path, conf string }

func newBenchNode(b *testing.B) *benchNode {
	b.Helper()
	s := kubetest.StartWithCRDs(b)
	s.MustKubectl(b, benchObjects, "apply", "-f", "-")
	n := &benchNode{server: s, dir: s.Dir}
	built, err := image.Build(b.Context(), image.BuildOptions{Root: "../../..", Out: n.dir}, []image.Program{image.Plugin})
	if err != nil {
		b.Fatal(err)
	}
	bin := built[0].Source
	if st, err := os.Stat(bin); err != nil {
		b.Fatal(err)
	} else {
		b.ReportMetric(float64(st.Size())/1e6, "plugin-MB")
	}
	n.startAgent(b)
	n.cni = []benchPlugin{
		{"muslin", bin, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"k8s-pod-network","type":"muslin","socket":%q,"spool":%q}`,
			filepath.Join(n.dir, "agent.sock"), filepath.Join(n.dir, "spool"))},
		{"ptp", "/usr/lib/cni/ptp", fmt.Sprintf(`{"cniVersion":"1.0.0","name":"ptp","type":"ptp","ipam":{"type":"host-local",
		 "dataDir":%q,"ranges":[[{"subnet":"10.9.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}`, filepath.Join(n.dir, "host-local"))},
	}
	n.bare = n.floors(b)
	return n
}

func (n *benchNode) startAgent(b *testing.B) {
	b.Helper()
	log, err := os.Create(filepath.Join(n.dir, "agent.log"))
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := n.server.Exec(self)
	cmd.Env = append(os.Environ(), envAgent+"="+n.dir)
	cmd.Stdout, cmd.Stderr = log, log
	ended := make(chan struct{})
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	n.agent = cmd.Process.Pid
	go func() { _ = cmd.Wait(); close(ended) }()
	b.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		log.Close()
		if to := os.Getenv("MUSLIN_BENCH_PROFILE"); to != "" {
			for _, name := range []string{"cpu.pprof", "agent.log"} {
				if out, err := exec.Command("cp", filepath.Join(n.dir, name), to).CombinedOutput(); err != nil {
					b.Errorf("keep %s: %v %s", name, err, out)
				}
			}
		}
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(filepath.Join(n.dir, "agent.sock")); err == nil {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("the agent does not serve: %s", tail(log.Name()))
		}
	}
}

// profileServer keeps the API server's CPU profile of the first 8 s of a race,
// and its metrics before and after, if MUSLIN_BENCH_PROFILE is set.
func (n *benchNode) profileServer(b *testing.B, name string) (done func()) {
	to := os.Getenv("MUSLIN_BENCH_PROFILE")
	if to == "" {
		return func() {}
	}
	keep := func(when string) {
		text, err := n.server.Kubectl("", "get", "--raw", "/metrics")
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "metrics-"+name+"-"+when), []byte(text), 0o644)
		}
		if err != nil {
			b.Error(err)
		}
	}
	keep("before")
	ended := make(chan error, 1)
	go func() {
		text, err := n.server.Kubectl("", "get", "--raw", "/debug/pprof/profile?seconds=8")
		if err == nil {
			err = os.WriteFile(filepath.Join(to, "server-"+name+".pprof"), []byte(text), 0o644)
		}
		ended <- err
	}()
	return func() {
		if err := <-ended; err != nil {
			b.Error(err)
		}
		keep("after")
	}
}

func tail(path string) string {
	text, _ := os.ReadFile(path)
	return string(text[max(0, len(text)-4000):])
}

// benchResult is what one plugin did in one race.
type benchResult struct {
	took    map[string][]time.Duration // by verb: of each exec
	cpu     map[string]time.Duration   // by verb and process: exec, agent, server (with etcd in it)
	elapsed map[string]time.Duration   // by verb: of the rounds, and "done" until nothing was left to do
}

func newBenchResult() *benchResult {
	return &benchResult{took: map[string][]time.Duration{}, elapsed: map[string]time.Duration{}, cpu: map[string]time.Duration{}}
}

// race lets the plugins take turns, round by round.
func (n *benchNode) race(b *testing.B, name string, parallel, rounds, pods int) map[string]*benchResult {
	b.Helper()
	n.makePods(b, name, rounds*pods)
	results := map[string]*benchResult{}
	for _, c := range n.cni {
		results[c.name] = newBenchResult()
	}
	for _, f := range n.bare {
		results[f.name] = newBenchResult()
	}
	workers := newBenchWorkers(b, n.server.Netns, parallel)
	for round := range rounds {
		order := slices.Clone(n.cni)
		if round%2 == 1 {
			slices.Reverse(order)
		}
		sandboxes := makeSandboxes(b, len(order)*pods)
		for _, verb := range []string{"ADD", "DEL"} {
			for i, c := range order {
				n.turn(b, workers, c, verb, name, round*pods, sandboxes[i*pods:(i+1)*pods], results[c.name])
			}
		}
		for _, s := range sandboxes {
			s.Close()
		}
		for _, f := range n.bare {
			f.turn(b, workers, pods, results[f.name])
		}
	}
	return results
}

func (n *benchNode) turn(b *testing.B, w *benchWorkers, c benchPlugin, verb, name string, first int, sandboxes []*os.File, r *benchResult) {
	b.Helper()
	took := make([]time.Duration, len(sandboxes))
	var execs atomic.Int64 // nanoseconds of CPU
	before := n.daemons(b)
	begin := time.Now()
	w.do(len(sandboxes), func(i int) {
		cmd := exec.Command(c.path)
		cmd.Env = []string{
			"CNI_COMMAND=" + verb, fmt.Sprintf("CNI_CONTAINERID=%s-%d", name, first+i),
			fmt.Sprintf("CNI_NETNS=/proc/%d/fd/%d", os.Getpid(), sandboxes[i].Fd()), "CNI_IFNAME=eth0", "CNI_PATH=/usr/lib/cni",
			fmt.Sprintf("CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s-%d", name, first+i),
		}
		cmd.Stdin = strings.NewReader(c.conf)
		start := time.Now()
		if out, err := cmd.Output(); err != nil {
			b.Errorf("%s %s: %v %s", c.name, verb, err, out)
		}
		took[i] = time.Since(start)
		execs.Add(int64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()))
	})
	r.took[verb] = append(r.took[verb], took...)
	r.elapsed[verb] += time.Since(begin)
	if verb == "DEL" {
		awaitDone(b, n.dir)
		r.elapsed["done"] += time.Since(begin)
	}
	r.cpu[verb+" exec"] += time.Duration(execs.Load())
	if c.name == "muslin" {
		after := n.daemons(b)
		r.cpu[verb+" agent"] += after["agent"] - before["agent"]
		r.cpu[verb+" server"] += after["server"] - before["server"]
	}
}

// daemons is the CPU time so far of the API server and the agent, which are all
// that lives in the node's network namespace.
func (n *benchNode) daemons(b *testing.B) map[string]time.Duration {
	b.Helper()
	sum := map[string]time.Duration{}
	out, err := exec.Command("ip", "netns", "pids", n.server.Netns).Output()
	if err != nil {
		b.Fatal(err)
	}
	const tick = 10 * time.Millisecond // USER_HZ
	for _, pid := range strings.Fields(string(out)) {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		if err != nil || pid == fmt.Sprint(os.Getpid()) {
			continue // ended meanwhile, or this process, some of whose threads are there
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		fields := strings.Fields(rest)
		for _, f := range fields[11:13] { // utime, stime
			ticks, err := strconv.Atoi(f)
			if err != nil {
				b.Fatal(err)
			}
			name := "server"
			if pid == strconv.Itoa(n.agent) {
				name = "agent"
			}
			sum[name] += time.Duration(ticks) * tick
		}
	}
	return sum
}

// awaitDone waits until every DEL is done that an agent has recorded.
func awaitDone(b *testing.B, dir string) {
	b.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		left, err := os.ReadDir(filepath.Join(dir, "spool"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			b.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("%d DELs are not done after a minute", len(left))
		}
	}
}

// makePods makes the pod objects: the agent asks for nobody else's.
func (n *benchNode) makePods(b *testing.B, name string, count int) {
	b.Helper()
	var text strings.Builder
	for i := range count {
		fmt.Fprintf(&text, "---\napiVersion: v1\nkind: Pod\nmetadata: {name: %s-%d, namespace: default}\n"+
			"spec: {nodeName: bench, containers: [{name: c, image: none}]}\n", name, i)
	}
	n.server.MustKubectl(b, text.String(), "create", "-f", "-")
}

// makeSandboxes makes network namespaces that live as long as their files.
func makeSandboxes(b *testing.B, count int) []*os.File {
	b.Helper()
	out := make([]*os.File, 0, count)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		for range count {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				done <- err
				return
			}
			f, err := os.Open("/proc/thread-self/ns/net")
			if err != nil {
				done <- err
				return
			}
			out = append(out, f)
		}
		done <- nil
	}()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	return out
}

// benchWorkers are threads in the node's network namespace.
type benchWorkers struct{ jobs []chan func() }

func newBenchWorkers(b *testing.B, netns string, count int) *benchWorkers {
	b.Helper()
	w := &benchWorkers{}
	for range count {
		jobs, ready := make(chan func()), make(chan error)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
			ready <- enter("/run/netns/" + netns)
			for f := range jobs {
				f()
			}
		}()
		if err := <-ready; err != nil {
			b.Fatal(err)
		}
		w.jobs = append(w.jobs, jobs)
		b.Cleanup(func() { close(jobs) })
	}
	return w
}

// do calls f for 0 to count-1, on all workers.
func (w *benchWorkers) do(count int, f func(i int)) {
	var all sync.WaitGroup
	next := make(chan int)
	for _, jobs := range w.jobs {
		all.Add(1)
		jobs <- func() {
			defer all.Done()
			for i := range next {
				f(i)
			}
		}
	}
	for i := range count {
		next <- i
	}
	close(next)
	all.Wait()
}

func enter(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
}

// report gives every figure of both, and what ours is in ptp's.
func report(b *testing.B, results map[string]*benchResult) {
	b.Helper()
	ours, theirs := figures(results["muslin"]), figures(results["ptp"])
	for _, name := range []string{"add-p50-ms", "add-p95-ms", "add/s", "del-p50-ms", "del-p95-ms", "del/s", "del-done/s", "add-cpu-ms", "del-cpu-ms"} {
		b.ReportMetric(ours[name], "muslin-"+name)
		b.ReportMetric(theirs[name], "ptp-"+name)
		b.ReportMetric(ours[name]/theirs[name], strings.TrimSuffix(name, "-ms")+"-x")
	}
	for name, value := range ours {
		if strings.Contains(name, "-cpu-") {
			b.ReportMetric(value, "muslin-"+name)
		}
	}
	exec, api := figures(results["exec"]), figures(results["api"])
	b.ReportMetric(exec["add-p50-ms"], "floor-exec-p50-ms")
	b.ReportMetric(api["add-p50-ms"], "floor-api-p50-ms")
	b.ReportMetric((exec["add-p50-ms"]+api["add-p50-ms"])/theirs["add-p50-ms"], "floor-add-p50-x")
	b.ReportMetric(1/(1/exec["add/s"]+1/api["add/s"])/theirs["add/s"], "floor-add/s-x")
	b.ReportMetric(0, "ns/op")
}

func figures(r *benchResult) map[string]float64 {
	out := map[string]float64{}
	for verb, took := range r.took {
		slices.Sort(took)
		name := strings.ToLower(verb)
		out[name+"-p50-ms"] = float64(took[len(took)/2]) / 1e6
		out[name+"-p95-ms"] = float64(took[len(took)*95/100]) / 1e6
		for _, process := range []string{"exec", "agent", "server"} {
			cpu := float64(r.cpu[verb+" "+process]) / float64(len(took)) / 1e6
			out[name+"-cpu-"+process+"-ms"] = cpu
			out[name+"-cpu-ms"] += cpu
		}
		out[name+"/s"] = float64(len(took)) / r.elapsed[verb].Seconds()
	}
	if done := r.elapsed["done"]; done > 0 {
		out["del-done/s"] = float64(len(r.took["DEL"])) / done.Seconds()
	}
	return out
}
