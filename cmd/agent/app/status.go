package app

import (
	"cmp"
	"context"
	"reflect"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// AnnotationDrainState on a Node is the agent's answer to muslin.io/drain: the
// step that has been said to all peers. It is absent while the node is not
// drained.
const AnnotationDrainState = "muslin.io/drain-state"

// reportStatus keeps what the API server says of this node true, but for its
// addresses: the Node's conditions, and how far its drain is. It writes what is
// another than it wrote before, and each minute what others may have changed.
func (a *agent) reportStatus(ctx context.Context, ready func()) error {
	ready()
	var pressure, trouble once[[]model.Problem]
	var up bool
	task.Loop(ctx, func(ctx context.Context) task.Next {
		next := task.Next{After: time.Minute}
		problems, changed := a.own.get()
		over, drained := get(&a.bgp.pressure, &changed), get(&a.bgp.drained, &changed)
		self := get(&a.in.common, &changed)
		get(&a.gates.reached, &changed)
		next.Changed = changed
		try := func(complaint string, err error) {
			if err != nil && ctx.Err() == nil {
				a.log.Warn(complaint, "error", err)
				next = next.Within(retryAfter)
			}
		}
		try("drain not confirmed", a.annotateDrain(ctx, self.Snapshot, drained))
		try("load of the route reflector not told", pressure.tell(over, func() error {
			reason, message := reflectorText(over)
			return a.cluster.SetReflectorPressure(ctx, len(over) > 0, reason, message)
		}))
		try("problems of the node not told", trouble.tell(problems, func() error {
			reason, message := problemText(problems)
			return a.cluster.SetNodeProblem(ctx, len(problems) > 0, reason, message)
		}))
		try("node condition not written", a.clearUnavailable(ctx, &up))
		return next
	})
	return nil
}

// once remembers what was told, so that it is told once. Of what an earlier
// process told it knows nothing.
type once[T any] struct {
	known     bool
	announced T
}

func (o *once[T]) tell(v T, write func() error) error {
	if o.known && reflect.DeepEqual(o.announced, v) {
		return nil
	}
	if err := write(); err != nil {
		return err
	}
	o.known, o.announced = true, v
	return nil
}

// annotateDrain tells whoever drains the node how far the drain is.
func (a *agent) annotateDrain(ctx context.Context, s model.Snapshot, step *string) error {
	self, ok := s.Node(a.cfg.Node)
	if !ok || step == nil || *step == self.Annotations[AnnotationDrainState] {
		return nil
	}
	return a.cluster.AnnotateNode(ctx, map[string]string{AnnotationDrainState: *step})
}

// reflectorText is of the condition RouteReflectorPressure.
func reflectorText(over []model.Problem) (reason, message string) {
	if len(over) > 0 {
		return over[0].Reason, over[0].Message
	}
	return "ReflectorWithinBounds", "the routes and clients of this route reflector are as many as it can serve"
}

// problemText is of the condition MuslinProblem.
func problemText(problems []model.Problem) (reason, message string) {
	var text []string
	for _, p := range problems {
		reason = cmp.Or(reason, p.Reason)
		text = append(text, p.Message)
	}
	if len(problems) == 0 {
		return "NoProblem", "address, files and ports of the node are as Muslin needs them"
	}
	return reason, strings.Join(text, "; ")
}

// clearUnavailable clears the condition NetworkUnavailable once the node can carry
// pods. A running agent never sets it again: pods keep talking while it restarts.
func (a *agent) clearUnavailable(ctx context.Context, up *bool) error {
	if len(a.gates.waiting(gateCluster, gateKernel, gateBGP)) > 0 {
		return nil
	}
	err := a.cluster.SetNetworkUnavailable(ctx, false, "MuslinIsUp", "Muslin forwards pod traffic on this node")
	if err == nil && !*up {
		*up = true
		a.log.Info("node network is up")
	}
	return err
}
