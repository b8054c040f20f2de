package scenario

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// What make test plays.
const (
	shortSeed     = 132
	shortDuration = 5 * time.Minute
)

var (
	chaosSeed     = flag.Uint64("seed", shortSeed, "what TestChaos draws its faults from; 0: the clock")
	chaosDuration = flag.Duration("duration", shortDuration, "how long TestChaos makes faults")
	chaosPlanFile = flag.String("plan", "", "a file with the faults that TestChaos plays, as it prints them, instead of drawn ones")
)

const (
	agentProgram      = "muslin-agent"
	controllerProgram = "muslin-controller"
)

// chaos is a cluster of light nodes and what its kubelets know.
type chaos struct {
	*LightCluster
	t        *testing.T
	began    time.Time
	api      *kubernetes.Clientset
	nodes    map[string]*chaosNode
	kubelets sync.WaitGroup // a goroutine a pod
	logs     logReader
	touched  sync.Map // *sync.Mutex by what faults touch

	mu   sync.Mutex
	pods map[string]*chaosPod     // by name; until nothing of them is left
	live map[netip.Addr]*chaosPod // those that have an address
}

// chaosNode is a Node as its kubelet registers it.
type chaosNode struct {
	sync.Mutex
	labels  map[string]string
	taints  []corev1.Taint
	address netip.Addr
	away    bool // deleted
}

// TestChaos makes faults that it draws from a seed, under pods that come and go,
// and looks every 5 s whether what always holds does: no address in two pods that
// live, no program ended by itself, no error logged that is not shown as a problem.
// After each round of faults, when they are over, everything has to come to rest:
// each block is announced by its owner and nobody else, IPAM has every pod's
// address, every pod reaches every other, and no problem is shown. When the last
// pod has gone no address is left, and after a long run the agents take no more memory
// and goroutines at rest than at its start. The controller looks for what leaked after
// seconds, not a quarter of an hour, so that it is about while faults are made.
//
// A seed is one list of faults, which is printed: the same list again is
// -args -seed N -duration D, or -args -plan FILE with what was printed, or less.
func TestChaos(t *testing.T) {
	t.Parallel() // mostly waits; beside other labs
	plan := chosenPlan(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5**chaosDuration+15*time.Minute)
	defer cancel()
	c := startChaos(t, ctx)
	c.settle(t, ctx, "start")
	stop := c.lookOften(ctx)
	var taken footprint
	for i, round := range plan {
		c.play(ctx, round)
		if c.settle(t, ctx, fmt.Sprint("round ", i+1)); t.Failed() {
			break
		}
		taken.measure(ctx, c)
	}
	taken.flat(t)
	for _, p := range c.livePods() {
		if err := c.endPod(ctx, upset{on: p.name}); err != nil {
			t.Error(err)
		}
	}
	c.kubelets.Wait()
	if err := c.persist(ctx, func() error { return c.nothingStored(ctx) }); err != nil && !t.Failed() {
		t.Error(err)
	}
	stop()
}

// chosenPlan is the one that the flags ask for.
func chosenPlan(t *testing.T) []chaosRound {
	t.Helper()
	var plan []chaosRound
	if *chaosPlanFile != "" {
		file, err := os.Open(*chaosPlanFile)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if plan, err = readPlan(file); err != nil {
			t.Fatalf("%s: %v", *chaosPlanFile, err)
		}
	} else {
		seed := *chaosSeed
		if seed == 0 {
			seed = uint64(time.Now().UnixNano())
		}
		plan = drawPlan(seed, *chaosDuration, [][]string{{"a1", "a2"}, {"b1", "b2"}})
		fmt.Fprintf(os.Stdout, "chaos: go test ./hack/scenario -run '^TestChaos$' -args -seed %d -duration %s\n", seed, *chaosDuration)
	}
	t.Logf("the plan: begins, lasts, kind, on, with\n%s", writePlan(plan))
	return plan
}

// startChaos brings up four agents and a controller.
func startChaos(t *testing.T, ctx context.Context) *chaos {
	t.Helper()
	c := &chaos{
		LightCluster: lightCluster(t, ctx, "chaos", "testdata/four-light.yaml"),
		t:            t, began: time.Now(),
		nodes: map[string]*chaosNode{}, pods: map[string]*chaosPod{}, live: map[netip.Addr]*chaosPod{},
	}
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.Dial, config.Timeout, config.QPS, config.Burst = c.DialContext, 10*time.Second, 100, 100
	if c.api, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Topology().Nodes {
		object, err := c.api.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes[n.Name] = &chaosNode{labels: object.Labels, taints: object.Spec.Taints, address: n.Address.V4}
	}
	if err := c.objectsReturn(ctx, upset{}); err != nil {
		t.Fatal(err)
	}
	if err := c.StartAgents(); err != nil {
		t.Fatal(err)
	}
	if err := c.startController(ctx, upset{}); err != nil {
		t.Fatal(err)
	}
	return c
}

// play makes the faults of a round and returns when all are over. One waits until an
// earlier one that touches the same thing is over: on a busy machine that takes longer
// than the plan says.
func (c *chaos) play(ctx context.Context, round chaosRound) {
	began := time.Now()
	var group errgroup.Group
	for _, f := range round {
		group.Go(func() error {
			c.sleep(ctx, time.Until(began.Add(f.at)))
			kind := faultKinds[f.kind]
			defer c.touch(kind.touches(f))()
			c.act(ctx, f, "begins", kind.begin)
			if kind.end != nil && f.lasts > 0 {
				c.sleep(ctx, f.lasts)
				c.act(ctx, f, "ends", kind.end)
			}
			return nil
		})
	}
	_ = group.Wait() // they tell of their errors themselves
}

// touch waits until nobody touches the things, until the returned function is called.
func (c *chaos) touch(things []string) (leave func()) {
	var held []*sync.Mutex
	for _, thing := range slices.Compact(slices.Sorted(slices.Values(things))) {
		lock, _ := c.touched.LoadOrStore(thing, &sync.Mutex{})
		held = append(held, lock.(*sync.Mutex))
		held[len(held)-1].Lock()
	}
	return func() {
		for _, lock := range held {
			lock.Unlock()
		}
	}
}

func (c *chaos) act(ctx context.Context, f upset, what string, verb func(*chaos, context.Context, upset) error) {
	if ctx.Err() != nil {
		return
	}
	c.logf("%s %s %s %s", f.kind, f.on, f.with, what)
	began := time.Now()
	defer func() {
		if took := time.Since(began); took > 5*time.Second {
			c.logf("%s %s %s %s, which took %.1f s", f.kind, f.on, f.with, what, took.Seconds())
		}
	}()
	if err := verb(c, ctx, f); err != nil && ctx.Err() == nil {
		c.errorf("%s %s %s %s: %v", f.kind, f.on, f.with, what, err)
	}
}

func (c *chaos) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// logf and errorf say when something happened, by the clock that programs log by.
func (c *chaos) logf(format string, args ...any) {
	c.t.Logf(time.Now().UTC().Format("15:04:05.000 ")+format, args...)
}

func (c *chaos) errorf(format string, args ...any) {
	c.t.Errorf(time.Now().UTC().Format("15:04:05.000 ")+format, args...)
}
