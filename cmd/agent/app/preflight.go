package app

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

// preflightAgain is when the host is looked at again, until it is as it should be.
const preflightAgain = 5 * time.Minute

// preflight says what of the host does not go with Muslin once the data plane
// stands: what breaks it is a problem of the node, what may is logged once.
func (a *agent) preflight(ctx context.Context, ready func()) error {
	ready()
	for first := true; ctx.Err() == nil; first = false {
		var problems []model.Problem
		for _, f := range a.view().Findings() {
			switch {
			case f.Breaks && f.Check != nodeview.CheckNode:
				problems = append(problems, nodeProblem(a.cfg.Node, f.Check, nodeview.ReasonHost, f.Says))
			case !f.Breaks && first:
				a.log.Info("the host is worth a look", "check", f.Check, "finding", f.Says)
			}
		}
		a.own.host.set(problems)
		if len(problems) == 0 {
			<-ctx.Done()
			return nil
		}
		pause(ctx, preflightAgain)
	}
	return nil
}
