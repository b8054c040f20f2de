package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// loop is what those of the data plane, BGP and network policy have in common:
// they gather inputs, decide, and hand the whole desired state to a sink.
type loop struct {
	name     string
	node     model.NodeName
	in       *inputs
	log      *slog.Logger
	gates    *gates
	metrics  *metrics
	pulses   *pulses
	problems problemList
	failing  map[string]string // sink → what it last complained of
}

func (a *agent) newLoop(name string) loop {
	return loop{
		name: name, node: a.cfg.Node, in: a.in, log: a.log, gates: a.gates, metrics: a.metrics, pulses: a.pulses,
		problems: problemList{log: a.log}, failing: map[string]string{},
	}
}

// String names it as a task.
func (l *loop) String() string { return l.name }

// repeat runs step whenever there is news, until ctx ends. While a step runs the
// loop's pulse is watched.
func (l *loop) repeat(ctx context.Context, step func(context.Context) task.Next, always ...<-chan struct{}) {
	task.Loop(ctx, func(ctx context.Context) task.Next {
		l.pulses.begin(l.name)
		defer l.pulses.rest(l.name)
		return step(ctx)
	}, always...)
}

// hand gives a sink what it is to have. An error is logged when it is a new one.
func (l *loop) hand(ctx context.Context, sink string, apply func() error) error {
	start := time.Now()
	err := apply()
	l.metrics.observe(sink, start, err)
	if ctx.Err() != nil {
		return err
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch before := l.failing[sink]; {
	case text == before:
	case err != nil:
		l.log.Warn("the desired state is refused", "sink", sink, "error", err)
	default:
		l.log.Info("the desired state is accepted again", "sink", sink)
	}
	l.failing[sink] = text
	return err
}
