package app

import (
	"log/slog"
	"slices"

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

// nodeProblems are those of the node itself rather than of an object that asks
// something of it: its condition MuslinProblem has them.
type nodeProblems struct {
	capabilities, address, install, http, metrics, socket, bgp, host, relay problemList
}

func newNodeProblems(log *slog.Logger) *nodeProblems {
	o := &nodeProblems{}
	for _, l := range o.lists() {
		l.log = log
	}
	return o
}

func (o *nodeProblems) lists() []*problemList {
	return []*problemList{&o.capabilities, &o.address, &o.install, &o.http, &o.metrics, &o.socket, &o.bgp, &o.host, &o.relay}
}

// get gives all of them, and how to learn of others.
func (o *nodeProblems) get() (all []model.Problem, changed []<-chan struct{}) {
	for _, l := range o.lists() {
		all = append(all, get(&l.now, &changed)...)
	}
	return all, changed
}

// nodeProblem is a problem of a node.
func nodeProblem(node model.NodeName, field, reason, message string) model.Problem {
	return model.Problem{Object: model.Ref{Kind: "Node", Name: string(node)}, Field: field, Reason: reason, Message: message}
}
