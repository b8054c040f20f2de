package agent

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/pkg/task"
)

// reportStatus keeps what the API server says of this node true, but for its
// address. NetworkUnavailable is cleared once the node can carry pods, and never
// set again by a running agent: pods keep talking while it restarts.
func (a *agent) reportStatus(ctx context.Context, ready func()) error {
	ready()
	cleared := false
	task.Loop(ctx, func(ctx context.Context) task.Next {
		wait := time.Minute
		problems, changed := a.own.get()
		get(&a.gates.reached, &changed)
		get(&a.speech.drained, &changed)
		get(&a.in.cluster, &changed)
		if err := a.annotateDrain(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("drain not confirmed", "error", err)
			wait = retryAfter
		}
		if err := a.tellReflector(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("load of the route reflector not told", "error", err)
			wait = retryAfter
		}
		if err := a.tellProblems(ctx, problems); err != nil && ctx.Err() == nil {
			a.log.Warn("problems of the node not told", "error", err)
			wait = retryAfter
		}
		if len(a.gates.waiting(gateCluster, gateKernel, gateBGP)) == 0 {
			err := a.cluster.SetNetworkUnavailable(ctx, false, "MuslinIsUp", "Muslin forwards pod traffic on this node")
			switch {
			case err != nil && ctx.Err() == nil:
				a.log.Warn("node condition not written", "error", err)
				wait = retryAfter
			case err == nil && !cleared:
				cleared = true
				a.log.Info("node network is up")
			}
		}
		return task.Next{After: wait, Changed: changed}
	})
	return nil
}
