package app

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/muslin-net/muslin/pkg/validate"
	"github.com/prometheus/client_golang/prometheus"
	rbac "k8s.io/api/rbac/v1"
)

const (
	retryAfter  = 2 * time.Second // after a write that failed
	lookAgain   = 5 * time.Minute // without any hint
	settleDelay = 200 * time.Millisecond
)

// Controller keeps conditions and default objects. Its fields are set before
// Run and not changed after.
type Controller struct {
	Cluster  *kube.Cluster // run by somebody else; it has to watch all blocks, and Services as Options.Balanced has it
	Store    ipam.Store    // blocks, affinities and handles
	Objects  *Objects
	Defaults Defaults
	Logger   *slog.Logger

	// Now is the clock; time.Now when nil.
	Now func() time.Time
	// Settle is how long what a deleted node held is kept after its last pod has
	// left the API; a minute when 0.
	Settle time.Duration

	metrics      metrics
	garbage      collector
	drainer      drainer
	uninstalling uninstalling
	sower        sower
	defaultsMade bool
	failing      bool                 // the last pass met an error
	reported     map[model.Ref]string // by events, of objects without conditions
	nodes        validate.Nodes       // of the last look at conditions
	untouched    []model.Problem      // HostEndpoints that are not the controller's
	granted      []rbac.PolicyRule    // of PasswordRole; nil: not known
	grantedAt    time.Time
}

// metrics are the controller's own; nil ones count nothing.
type metrics struct {
	writes    *prometheus.CounterVec
	problems  prometheus.Gauge
	freed     prometheus.Counter
	reclaimed *prometheus.CounterVec
	leader    prometheus.Gauge
	usage     *usageMetrics
}

// Register makes the controller's metrics and registers them.
func (c *Controller) Register(r prometheus.Registerer) error {
	c.metrics = metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muslin_controller_condition_writes_total", Help: "Writes of conditions to objects, by kind and outcome.",
		}, []string{"kind", "outcome"}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muslin_controller_objects_with_problems", Help: "Objects whose condition Accepted or Allocatable was last found not true, and those of the seed that are refused.",
		}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muslin_controller_freed_addresses_total", Help: "Addresses released because their node does not exist any more, nor a pod that has them.",
		}),
		reclaimed: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "ipam_allocations_gc_reclamations", Help: "Leaked addresses released, by pool and by the node that had them.",
		}, []string{"ippool", "node"}),
		leader: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muslin_leader", Help: "1 while this replica holds the lease and works.",
		}),
		usage: &usageMetrics{},
	}
	m := &c.metrics
	var errs []error
	for _, collector := range []prometheus.Collector{m.writes, m.problems, m.freed, m.reclaimed, m.leader, m.usage} {
		errs = append(errs, r.Register(collector))
	}
	return errors.Join(errs...)
}

// Run works until ctx ends, and returns nil then. It expects to be the only one
// that does: see Elect.
func (c *Controller) Run(ctx context.Context) error {
	if c.Now == nil {
		c.Now = time.Now
	}
	if leader := c.metrics.leader; leader != nil {
		leader.Set(1)
		defer leader.Set(0)
		defer c.metrics.usage.set(model.Snapshot{}, nil) // whoever works next counts
	}
	c.defaultsMade, c.failing, c.reported, c.untouched, c.granted = false, false, nil, nil, nil
	c.garbage = collector{
		store: c.Store, objects: c.Objects, exists: c.Cluster.NodeExists, now: c.Now,
		log: c.Logger, metrics: &c.metrics, settle: cmp.Or(c.Settle, settle),
	}
	c.drainer = drainer{store: c.Store, objects: c.Objects}
	c.Objects.pods = newPodIndex() // what an earlier term knew is old
	c.uninstalling.init()
	c.sower = sower{objects: c.Objects, cluster: c.Cluster, log: c.Logger, changed: make(chan struct{}, 1)}
	c.sower.look()
	select {
	case <-c.Cluster.Ready():
	case <-ctx.Done():
		return nil
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.Objects.watchPods(ctx) })
	wg.Go(func() { c.watchUninstall(ctx) })
	wg.Go(func() { c.sower.watch(ctx) })
	services := balancer{cluster: c.Cluster, store: c.Store, now: c.Now, log: c.Logger}
	wg.Go(func() { services.run(ctx) })
	task.Loop(ctx, func(ctx context.Context) task.Next {
		select { // a burst of changes is one look
		case <-ctx.Done():
			return task.Next{}
		case <-c.uninstalling.changed:
		case <-time.After(settleDelay):
		}
		return task.Next{After: c.pass(ctx)}
	}, c.uninstalling.changed, c.sower.changed, c.Cluster.Changed())
	return c.leave(ctx)
}

// pass does all that has to be done now, and says when to look again without a
// changed. An error is logged when it comes up, not every time it is met again.
func (c *Controller) pass(ctx context.Context) (after time.Duration) {
	errs := []error{c.plant(ctx)}
	after = lookAgain
	for _, part := range []func(context.Context) (time.Duration, error){c.vacate, c.grant, c.drain, c.collect, c.keepEndpoints} {
		again, err := part(ctx)
		after, errs = min(after, again), append(errs, err)
	}
	err := errors.Join(append(errs, c.writeConditions(ctx), c.tell(ctx))...)
	if err != nil && !c.failing && ctx.Err() == nil {
		c.Logger.Error("cannot write objects", "error", err)
	}
	c.failing = err != nil
	if c.failing {
		return min(after, retryAfter)
	}
	return after
}

// plant makes the objects of the seed, and then the defaults that are absent still:
// as long as the seed cannot be read, there might be a pool in it.
func (c *Controller) plant(ctx context.Context) error {
	had := c.sower.pool
	if err := c.sower.sow(ctx); err != nil {
		return err
	}
	if c.defaultsMade && (!had || c.sower.pool) {
		return nil
	}
	defaults := c.Defaults
	if c.sower.pool {
		defaults = Defaults{}
	}
	err := c.makeDefaults(ctx, defaults)
	c.defaultsMade = err == nil
	return err
}

// drain keeps the finalizers of pools.
func (c *Controller) drain(ctx context.Context) (again time.Duration, err error) {
	draining, err := c.drainer.drain(ctx, c.Cluster.Snapshot(), c.Cluster.Reported(), c.uninstalling.yes())
	if draining {
		c.garbage.hurry(retryAfter)
		return retryAfter, err
	}
	return lookAgain, err
}

// collect releases garbage.
func (c *Controller) collect(ctx context.Context) (again time.Duration, err error) {
	seen, again, err := c.garbage.collect(ctx, c.Cluster.Snapshot())
	if seen != nil {
		c.drainer.unowned = seen.unowned()
	}
	return again, err
}

func (c *Controller) writeConditions(ctx context.Context) error {
	s := state{
		objects: c.Cluster.Reported(), pools: c.Cluster.AgedPools(),
		snapshot: c.Cluster.Snapshot(), policies: c.Cluster.PolicyView(), problems: c.Cluster.Problems(), nodes: &c.nodes,
	}
	todo, notTrue := changes(s, c.Now())
	if c.metrics.problems != nil {
		c.metrics.problems.Set(float64(notTrue + len(c.sower.refused)))
	}
	var errs []error
	for _, ch := range todo {
		err := c.Cluster.PatchConditions(ctx, ch.object, ch.conditions)
		c.count(ch.object.Ref.Kind, err)
		errs = append(errs, err)
		if err == nil {
			c.log(ch)
		}
	}
	return errors.Join(errs...)
}

func (c *Controller) count(kind string, err error) {
	if c.metrics.writes == nil {
		return
	}
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	c.metrics.writes.WithLabelValues(kind, outcome).Inc()
}

// log says what was written, once for each transition.
func (c *Controller) log(ch change) {
	for _, cond := range ch.conditions {
		if cond.Type != conditionAccepted && cond.Type != kube.ConditionAllocatable {
			continue
		}
		level := slog.LevelDebug
		if cond.Status == "False" {
			level = slog.LevelWarn
		}
		c.Logger.Log(context.Background(), level, "condition written",
			"object", ch.object.Ref.String(), "type", cond.Type, "status", string(cond.Status), "reason", cond.Reason, "message", cond.Message)
	}
}
