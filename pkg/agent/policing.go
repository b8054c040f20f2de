package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// policing computes what the kernel has to know of network policy whenever something
// changed, and hands it to its sink. A pod's ADD is answered once the sink has a
// Program that was made with the pod in it. As long as not every kind of policy has
// been read the kernel stays as it is, and no ADD is answered.
type policing struct {
	a        *agent
	sink     *policynft.Sink
	engine   policy.Engine
	problems problemList
	failing  string // what the sink last complained of
	last     atomic.Pointer[policy.Program]
	denied   deniedList
	tenure   tenure
	due      []netip.Addr // whose connections are to end
	deaf     bool         // the kernel does not tell of connections
	rev      uint64       // of the endpoints that the last step worked with
}

func newPolicing(a *agent) (*policing, error) {
	sink, err := policynft.New(policynft.Options{Logger: a.log})
	if err != nil {
		return nil, fmt.Errorf("open nftables for policy: %w", err)
	}
	return &policing{a: a, sink: sink, problems: problemList{log: a.log}, tenure: newTenure(a.endpoints.List())}, nil
}

// run keeps the table of policy as it should be until ctx ends, and leaves it so.
func (p *policing) run(ctx context.Context, ready func()) error {
	ready() // BGP does not wait for it; each ADD does
	step := p.a.pulses.round("network policy", p.step)
	task.Loop(ctx, func(ctx context.Context) task.Next {
		if pods, changed := p.a.endpoints.set.Get(); pods.rev == p.rev { // it is not a pod that comes
			batch(ctx, p.a.cluster.PolicyChanged(), changed)
		}
		return step(ctx)
	}, p.a.cluster.PolicyChanged(), p.sink.Changed())
	return nil
}

// batchFor is how long a change of policies or pods waits for others that come
// with it, such as the pods of a Deployment.
const batchFor = 15 * time.Millisecond

// batch lets what changes within batchFor come together. What is urgent, an
// endpoint that an ADD waits for, ends it at once.
func batch(ctx context.Context, changed, urgent <-chan struct{}) {
	enough := time.After(batchFor)
	for {
		select {
		case <-changed:
		case <-urgent:
			return
		case <-enough:
			return
		case <-ctx.Done():
			return
		}
	}
}

// step brings the table to what it should be, and asks for another try of what
// failed.
func (p *policing) step(ctx context.Context) task.Next {
	pods, changed := p.a.endpoints.set.Get()
	next := task.Next{Changed: []<-chan struct{}{changed}}
	p.rev = pods.rev
	program, problems := p.engine.Compile(policy.Input{
		Self: p.a.cfg.Node, View: p.a.cluster.PolicyView(), Endpoints: pods.list, EndpointsSynced: true,
	})
	if program.Complete {
		p.problems.set(problems)
		p.last.Store(&program)
	}
	start := time.Now()
	err := p.sink.Apply(ctx, program, felix.InterfacePrefixes(p.a.cluster.Snapshot(), p.a.cfg.Node, pods.list))
	if err == nil && program.Complete {
		err = p.forget(pods.list, program.Judges())
	}
	p.a.metrics.observe("policy", start, err)
	p.complain(ctx, err)
	if err != nil {
		next.After = retryAfter
	} else if program.Complete {
		p.a.endpoints.settle(writerPolicy, pods.rev)
	}
	return next
}

// forget ends the connections of addresses that changed hands, once the kernel judges
// new ones by what is wanted now. No ADD is answered before. Where nothing is judged
// there is nothing to inherit, and to look at the kernel's connections costs
// milliseconds.
func (p *policing) forget(pods []model.Endpoint, judged bool) error {
	p.due = append(p.due, p.tenure.next(pods)...)
	if !judged {
		p.due = nil
	}
	_, err := p.sink.Forget(p.due)
	if errors.Is(err, errors.ErrUnsupported) {
		if !p.deaf {
			p.a.log.Warn("a pod may inherit connections with the address of another", "error", err)
		}
		p.deaf, err = true, nil
	}
	if err == nil {
		p.due = nil
	}
	return err
}

// complain logs an error of the sink when it is a new one.
func (p *policing) complain(ctx context.Context, err error) {
	said := ""
	if err != nil && ctx.Err() == nil {
		said = err.Error()
	}
	if said == p.failing {
		return
	}
	if p.failing = said; said != "" {
		p.a.log.Warn("kernel refuses network policy; pods stay as they are and new ones wait", "error", err)
	} else {
		p.a.log.Info("kernel accepts network policy again")
	}
}

// waiting says what an ADD waits for beside the kernel, "" for nothing.
func (p *policing) waiting() string {
	if sources := p.a.cluster.PolicyWaiting(); len(sources) > 0 {
		return "network policy is not known yet: cannot read " + strings.Join(sources, ", ")
	}
	return ""
}

// found are the policies and pods that something is wrong with.
func (p *policing) found() []model.Problem { return p.problems.get() }

// size counts what the kernel was told last.
func (p *policing) size() PolicySize {
	last := p.last.Load()
	if last == nil {
		return PolicySize{}
	}
	out := PolicySize{Chains: len(last.Chains), Endpoints: len(last.Endpoints), Sets: len(last.Sets)}
	for _, s := range last.Sets {
		out.Members += len(s.Addresses) + len(s.Nets) + len(s.Ports)
	}
	return out
}

// text is what the kernel was told last.
func (p *policing) text() string {
	if last := p.last.Load(); last != nil {
		return last.String()
	}
	return "network policy is not known yet\n"
}
