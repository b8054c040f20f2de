package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// problemList holds the problems of one room and logs each when it comes and
// when it goes, not while it lasts.
type problemList struct {
	log *slog.Logger
	now task.Cell[[]model.Problem]
}

func (l *problemList) set(problems []model.Problem) {
	l.now.Update(func() []model.Problem {
		l.report(l.now.Value(), problems)
		return problems
	})
}

// report logs what is new, and what is over.
func (l *problemList) report(before, now []model.Problem) {
	for _, p := range now {
		if !slices.Contains(before, p) {
			l.log.Warn("problem", "object", p.Object.String(), "field", p.Field, "reason", p.Reason, "message", p.Message)
		}
	}
	for _, p := range before {
		if !slices.Contains(now, p) {
			l.log.Info("problem solved", "object", p.Object.String(), "field", p.Field, "reason", p.Reason)
		}
	}
}

// setOne has the list hold this problem, if there is an error, and nothing else.
func (l *problemList) setOne(err error, p model.Problem) {
	if err == nil {
		l.set(nil)
		return
	}
	l.set([]model.Problem{p})
}

func (l *problemList) get() []model.Problem { return l.now.Value() }

// ownProblems are those of the node itself rather than of an object that asks
// something of it: its condition MuslinProblem has them.
type ownProblems struct {
	address, install, http, metrics, socket, bgp problemList

	told  []model.Problem // as the condition has them
	known bool            // told is that: not what an earlier process wrote
}

func newOwnProblems(log *slog.Logger) *ownProblems {
	o := &ownProblems{}
	for _, l := range o.lists() {
		l.log = log
	}
	return o
}

func (o *ownProblems) lists() []*problemList {
	return []*problemList{&o.address, &o.install, &o.http, &o.metrics, &o.socket, &o.bgp}
}

// get gives all of them, and how to learn of others.
func (o *ownProblems) get() (all []model.Problem, changed []<-chan struct{}) {
	for _, l := range o.lists() {
		all = append(all, get(&l.now, &changed)...)
	}
	return all, changed
}

// tellProblems keeps the node's condition true to its problems.
func (a *agent) tellProblems(ctx context.Context, now []model.Problem) error {
	if a.own.known && slices.Equal(now, a.own.told) {
		return nil
	}
	reason, text := "NoProblem", []string{}
	for _, p := range now {
		reason = now[0].Reason
		text = append(text, p.Message)
	}
	if len(now) == 0 {
		text = append(text, "address, files and ports of the node are as Muslin needs them")
	}
	if err := a.cluster.SetNodeProblem(ctx, len(now) > 0, reason, strings.Join(text, "; ")); err != nil {
		return err
	}
	a.own.told, a.own.known = now, true
	return nil
}

// nodeProblem is a problem of this node.
func (a *agent) nodeProblem(field, reason, message string) model.Problem {
	return model.Problem{Object: model.Ref{Kind: "Node", Name: string(a.cfg.Node)}, Field: field, Reason: reason, Message: message}
}
