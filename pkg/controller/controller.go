package controller

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	retryAfter  = 2 * time.Second // after a write that failed
	lookAgain   = 5 * time.Minute // without any hint
	settleDelay = 200 * time.Millisecond
)

// Controller keeps conditions and default objects. Its fields are set before
// Run and not changed after.
type Controller struct {
	Cluster  *kube.Cluster // run by somebody else; it has to watch all blocks
	Store    ipam.Store    // what deleted nodes held is freed here
	Defaults Defaults
	Logger   *slog.Logger

	// Now is the clock; time.Now when nil.
	Now func() time.Time

	metrics      metrics
	gone         gone
	defaultsMade bool
	failing      bool // the last pass met an error
}

// metrics are the controller's own; nil ones count nothing.
type metrics struct {
	writes   *prometheus.CounterVec
	problems prometheus.Gauge
	freed    prometheus.Counter
}

// Register makes the controller's metrics and registers them.
func (c *Controller) Register(r prometheus.Registerer) error {
	c.metrics = metrics{
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muslin_controller_condition_writes_total", Help: "Writes of conditions to objects, by kind and outcome.",
		}, []string{"kind", "outcome"}),
		problems: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "muslin_controller_objects_with_problems", Help: "Objects whose condition Accepted or Allocatable was last found not true.",
		}),
		freed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "muslin_controller_freed_addresses_total", Help: "Addresses freed because their node does not exist any more.",
		}),
	}
	return errors.Join(r.Register(c.metrics.writes), r.Register(c.metrics.problems), r.Register(c.metrics.freed))
}

// Run works until ctx ends, and returns nil then. It expects to be the only one
// that does: see Elect.
func (c *Controller) Run(ctx context.Context) error {
	if c.Now == nil {
		c.Now = time.Now
	}
	c.defaultsMade, c.failing = false, false
	c.gone = gone{store: c.Store, exists: c.Cluster.NodeExists, now: c.Now}
	select {
	case <-c.Cluster.Ready():
	case <-ctx.Done():
		return nil
	}
	for {
		after := c.pass(ctx)
		if !c.wait(ctx, after) {
			return nil
		}
	}
}

// pass does all that has to be done now, and says when to look again without a
// hint. An error is logged when it comes up, not every time it is met again.
func (c *Controller) pass(ctx context.Context) (after time.Duration) {
	var errs []error
	if !c.defaultsMade {
		err := c.makeDefaults(ctx)
		c.defaultsMade = err == nil
		errs = append(errs, err)
	}
	more, err := c.freeGone(ctx)
	err = errors.Join(append(errs, err, c.writeConditions(ctx))...)
	if err != nil && !c.failing && ctx.Err() == nil {
		c.Logger.Error("cannot write objects", "error", err)
	}
	c.failing = err != nil
	if c.failing || more {
		return retryAfter
	}
	return lookAgain
}

// wait returns when it is time to look again, false when ctx has ended. A burst
// of changes is one look.
func (c *Controller) wait(ctx context.Context, after time.Duration) bool {
	timer := time.NewTimer(after)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-c.Cluster.Changed():
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(settleDelay):
		return true
	}
}

// freeGone frees what deleted nodes held; more says to look again soon.
func (c *Controller) freeGone(ctx context.Context) (more bool, err error) {
	errs := []error{c.gone.readBorrowers(ctx)}
	s := c.Cluster.Snapshot()
	due, more := c.gone.due(s)
	for _, node := range due {
		f, err := c.gone.free(ctx, node, s)
		if c.metrics.freed != nil {
			c.metrics.freed.Add(float64(f.addresses))
		}
		if err == nil && f != (freed{}) {
			c.Logger.Info("freed what a deleted node held", "node", node, "addresses", f.addresses, "handles", f.handles, "blocks", f.blocks)
		}
		errs = append(errs, err)
	}
	return more, errors.Join(errs...)
}

func (c *Controller) writeConditions(ctx context.Context) error {
	s := state{
		objects: c.Cluster.Reported(), pools: c.Cluster.AgedPools(),
		snapshot: c.Cluster.Snapshot(), problems: c.Cluster.Problems(),
	}
	todo, notTrue := changes(s, c.Now())
	if c.metrics.problems != nil {
		c.metrics.problems.Set(float64(notTrue))
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
