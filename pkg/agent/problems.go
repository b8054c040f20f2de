package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// problemList holds the problems of one room and logs each when it comes and
// when it goes, not while it lasts.
type problemList struct {
	mu      sync.Mutex
	log     *slog.Logger
	changed hint // told of both; nil: nobody
	now     []model.Problem
}

func (l *problemList) set(problems []model.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range problems {
		if !slices.Contains(l.now, p) {
			l.log.Warn("problem", "object", p.Object.String(), "field", p.Field, "reason", p.Reason, "message", p.Message)
		}
	}
	for _, p := range l.now {
		if !slices.Contains(problems, p) {
			l.log.Info("problem solved", "object", p.Object.String(), "field", p.Field, "reason", p.Reason)
		}
	}
	if !slices.Equal(l.now, problems) {
		l.changed.notify()
	}
	l.now = problems
}

// setOne has the list hold this problem, if there is an error, and nothing else.
func (l *problemList) setOne(err error, p model.Problem) {
	if err == nil {
		l.set(nil)
		return
	}
	l.set([]model.Problem{p})
}

func (l *problemList) get() []model.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}

// ownProblems are those of the node itself rather than of an object that asks
// something of it: its condition MuslinProblem has them.
type ownProblems struct {
	address, install, http, metrics, socket, bgp problemList

	told  []model.Problem // as the condition has them
	known bool            // told is that: not what an earlier process wrote
}

func newOwnProblems(log *slog.Logger, changed hint) *ownProblems {
	list := func() problemList { return problemList{log: log, changed: changed} }
	return &ownProblems{address: list(), install: list(), http: list(), metrics: list(), socket: list(), bgp: list()}
}

func (o *ownProblems) get() []model.Problem {
	return slices.Concat(o.address.get(), o.install.get(), o.http.get(), o.metrics.get(), o.socket.get(), o.bgp.get())
}

// tellProblems keeps the node's condition true to its problems.
func (a *agent) tellProblems(ctx context.Context) error {
	now := a.own.get()
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
