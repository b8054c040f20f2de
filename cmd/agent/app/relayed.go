package app

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// relayed has a policy relay tell of pods of other nodes, where the agent does not watch
// these itself.
type relayed struct {
	client   *policyrelay.Client // nil: the agent watches them
	node     model.NodeName
	union    policyrelay.Union
	problems *problemList
	began    time.Time // when the view was first looked at
	answered bool      // a relay has answered since then
	view     policyrelay.View
}

// relay makes the client of policy relays, nil if there is to be none.
func (c Config) relay(cfg *rest.Config) (*policyrelay.Client, error) {
	if c.RelayToken == "" {
		return nil, nil
	}
	found, err := policyrelay.NewDirectory(cfg, c.Logger)
	if err != nil {
		return nil, err
	}
	return &policyrelay.Client{
		Node: c.Node, Replicas: found.Replicas, File: c.relayedPath(), Logger: c.Logger,
		Token: func() (string, error) {
			text, err := os.ReadFile(c.RelayToken)
			return strings.TrimSpace(string(text)), err
		},
	}, nil
}

// relayedPath is beside the last state.
func (c Config) relayedPath() string {
	return filepath.Join(filepath.Dir(c.statePath()), "policy-pods")
}

// run follows a relay until ctx ends.
func (r *relayed) run(ctx context.Context, ready func()) error {
	if r.client == nil {
		ready()
		<-ctx.Done()
		return nil
	}
	return r.client.Run(ctx, ready)
}

// fill adds the pods of other nodes, and for which rules they are enough.
func (r *relayed) fill(in *policy.Input, next *task.Next) {
	if r.client == nil {
		return
	}
	view, changed := r.client.View()
	next.Changed = append(next.Changed, changed)
	if r.began.IsZero() {
		r.began = time.Now()
	}
	r.answered, r.view = view.Answered, view
	in.Known, in.View.Pods = view.Known, r.union.Of(in.View.Pods, view.Pods)
	r.report(view, next)
}

// applied says that the kernel has what fill has added.
func (r *relayed) applied() {
	if r.client != nil {
		r.client.Applied(r.view)
	}
}

// need has the relay tell of what rules ask for.
func (r *relayed) need(list []policy.Need) {
	if r.client != nil {
		r.client.Need(list)
	}
}

// firstAnswer is how long a new process leaves the kernel as it is, for want of an
// answer of a relay: what the process before has put there is newer than what it left
// on disk. Where there is no table it does not wait.
const firstAnswer = 3 * time.Second

// awaits reports whether a Program with those needs is to wait for a relay.
func (r *relayed) awaits(needs []policy.Need, next *task.Next) bool {
	left := time.Until(r.began.Add(firstAnswer))
	if r.client == nil || r.answered || len(needs) == 0 || left <= 0 {
		return false
	}
	*next = next.Within(left)
	return true
}

// relayPatience is how long a relay may be away, as while it is replaced, before that is
// a problem.
const relayPatience = 30 * time.Second

// report tells of a relay that does not answer, or cannot read what it is asked for.
func (r *relayed) report(v policyrelay.View, next *task.Next) {
	var list []model.Problem
	for _, n := range v.Refused {
		list = append(list, nodeProblem(r.node, "MUSLIN_POLICY_RELAY", "PolicyRelayRefuses",
			fmt.Sprintf("the policy relay cannot read %q: rules with it allow nothing; agents and controller have to be of one version", n.Selector+n.Port)))
	}
	if !v.Lost.IsZero() {
		if left := time.Until(v.Lost.Add(relayPatience)); left > 0 {
			*next = next.Within(left)
		} else {
			list = append(list, nodeProblem(r.node, "MUSLIN_POLICY_RELAY", "NoPolicyRelay",
				fmt.Sprintf("no policy relay has answered since %s: rules hold with the pods of then, and those with other peers allow nothing", v.Lost.UTC().Format(time.RFC3339))))
		}
	}
	r.problems.set(list)
}
