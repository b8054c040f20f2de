package app

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policynft"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// policyLoop computes what the kernel has to know of network policy whenever something
// changed, and hands it to its sink. A pod's ADD is answered once the sink has a
// Program that was made with the pod in it. As long as not every kind of policy has
// been read the kernel stays as it is, and no ADD is answered.
type policyLoop struct {
	loop
	cluster   *kube.Cluster
	alloc     *alloc.Allocator
	holes     *task.Cell[[]netip.Prefix] // the data plane's
	endpoints *endpoints
	sink      *policynft.Sink
	apiServer model.FailsafePort
	engine    policy.Engine
	relayed   relayed
	last      atomic.Pointer[policy.Program]
	denied    deniedList
	tenure    *tenure
	coming    coming
	sweepAt   time.Time // not before then connections of free addresses are ended
	deaf      bool      // the kernel does not tell of connections
	rev       uint64    // of the endpoints that the last step worked with
	stepped   time.Time // when that began
}

func newPolicyLoop(a *agent) (*policyLoop, error) {
	sink, err := policynft.New(policynft.Options{Logger: a.log})
	if err != nil {
		return nil, fmt.Errorf("open nftables for policy: %w", err)
	}
	return &policyLoop{
		loop: a.newLoop("network policy"), cluster: a.cluster, alloc: a.alloc, holes: &a.dataplane.holes, endpoints: a.endpoints, sink: sink, apiServer: a.apiServer,
		relayed: relayed{client: a.relay, node: a.cfg.Node, problems: &a.own.relay},
		tenure:  newTenure(a.endpoints.List()),
	}, nil
}

// Ready is closed: nothing waits for policy but each ADD.
func (p *policyLoop) Ready() <-chan struct{} { return nothingAwaited }

// Run keeps the table of policy as it should be until ctx ends, and leaves it so.
func (p *policyLoop) Run(ctx context.Context) error {
	p.repeat(ctx, func(ctx context.Context) task.Next {
		pods, changed := p.endpoints.set.Get()
		_, added := p.coming.added.Get()
		if pods.rev == p.rev && !p.coming.waits() { // it is not a pod that comes
			batch(ctx, time.Until(p.stepped.Add(batchFor)), p.cluster.PolicyChanged(), changed, added)
		}
		p.stepped = time.Now()
		return p.step(ctx)
	}, p.cluster.PolicyChanged(), p.sink.Changed())
	return nil
}

// namespacesOf are those in which some pod is attached.
func namespacesOf(list []model.Endpoint) map[string]bool {
	out := map[string]bool{}
	for _, e := range list {
		if e.Pod != "" {
			out[e.Namespace] = true
		}
	}
	return out
}

// batchFor is how long after a change of policies or pods the next ones, such as the
// other pods of a Deployment, wait for each other. One that comes alone does not wait.
const batchFor = 15 * time.Millisecond

// batch lets what changes within a time come together. What an ADD waits for, an endpoint
// or one that is to come, ends it at once.
func batch(ctx context.Context, within time.Duration, changed, endpoints, coming <-chan struct{}) {
	if within <= 0 {
		return
	}
	enough := time.After(within)
	for {
		select {
		case <-changed:
		case <-endpoints:
			return
		case <-coming:
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
func (p *policyLoop) step(ctx context.Context) task.Next {
	var next task.Next
	pods := get(&p.endpoints.set, &next.Changed)
	p.rev = pods.rev
	p.cluster.WantPolicies(namespacesOf(pods.list))
	in := policy.Input{Self: p.node, View: p.cluster.PolicyView(), Endpoints: pods.list, EndpointsSynced: true}
	in.EpochMask = epochMask(in.View.Felix, p.node)
	p.relayed.fill(&in, &next)
	p.ofHost(&in, &next)
	program, problems := p.engine.Compile(in)
	if program.Complete {
		p.problems.set(problems)
		p.relayed.need(program.Needs)
		if p.relayed.awaits(program.Needs, &next) && p.sink.There() {
			return next // without a table pods would be open meanwhile
		}
		p.last.Store(&program)
	}
	err := p.hand(ctx, "policy", func() error {
		if program.Complete {
			p.tenure.next(pods.list, p.ofSelf(&next), p.dropping(&next))
			if err := p.disconnect(program.Evaluates(), &next); err != nil {
				return err
			}
		}
		err := p.sink.Apply(ctx, program, felix.InterfacePrefixes(p.cluster.Snapshot(), p.node, pods.list))
		if err == nil && program.Complete {
			err = p.forget(program.Evaluates(), &next)
		}
		return err
	})
	if err != nil {
		next.After = retryAfter
	} else if program.Complete {
		p.relayed.applied()
		p.endpoints.settle(writerPolicy, pods.rev)
	}
	return next
}

// waiting says what an ADD waits for beside the kernel, "" for nothing.
func (p *policyLoop) waiting() string {
	if sources := p.cluster.PolicyWaiting(); len(sources) > 0 {
		return "network policy is not known yet: cannot read " + strings.Join(sources, ", ")
	}
	return ""
}

// size counts what the kernel was told last.
func (p *policyLoop) size() PolicySize {
	last := p.last.Load()
	if last == nil {
		return PolicySize{}
	}
	out := PolicySize{Chains: last.Chains.Len(), Endpoints: len(last.Endpoints), Sets: last.Sets.Len()}
	for s := range last.Sets.All() {
		out.Members += s.Addresses.Len() + s.Nets.Len() + s.Ports.Len()
	}
	return out
}

// text is what the kernel was told last.
func (p *policyLoop) text() string {
	if last := p.last.Load(); last != nil {
		return last.String()
	}
	return "network policy is not known yet\n"
}
