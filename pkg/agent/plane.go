package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/nft"
	"github.com/muslin-net/muslin/felix/podlink"
	"github.com/muslin-net/muslin/felix/radv"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/felix/sysctl"
	"github.com/muslin-net/muslin/felix/tunnel"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// sink is a room that is told the whole desired state.
type sink struct {
	name  string
	apply func(context.Context, felix.State) error
	// extra is set where pods of this node do without: a kernel that has no
	// such tunnel still carries what needs none.
	extra bool
}

// plane computes the desired state of the kernel whenever something changed,
// and hands it to the sinks. It is the only caller of theirs, so host routes
// and rules have one writer.
type plane struct {
	a        *agent
	nft      *nft.Reconciler
	tunnels  *tunnel.Reconciler
	podLinks *podlink.Reconciler
	radv     *radv.Advertiser
	sinks    []sink
	problems problemList
	ready    chan struct{}
	failing  map[string]string // sink → what it last complained of
	last     atomic.Pointer[felix.State]
	up       task.Cell[felix.TunnelAddresses] // those of this node whose device stands
}

func newPlane(a *agent) (*plane, error) {
	p := &plane{a: a, problems: problemList{log: a.log}, ready: make(chan struct{}), failing: map[string]string{}}
	var err error
	if p.nft, err = nft.New(nft.Options{Logger: a.log}); err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	if p.tunnels, err = tunnel.New(tunnel.Options{Logger: a.log}); err != nil {
		return nil, fmt.Errorf("open tunnels: %w", err)
	}
	if p.podLinks, err = podlink.New(podlink.Options{ProcSys: a.cfg.ProcSys, Logger: a.log}); err != nil {
		return nil, fmt.Errorf("open pod links: %w", err)
	}
	if p.radv, err = radv.New(radv.Options{}); err != nil {
		return nil, fmt.Errorf("open router advertisements: %w", err)
	}
	knobs := sysctl.New(sysctl.Options{Root: a.cfg.ProcSys, Logger: a.log})
	// Forwarding, devices and rules stand before routes lead anybody here.
	p.sinks = []sink{
		{name: "sysctl", apply: knobs.Apply}, {name: "tunnel", apply: p.tunnels.Apply, extra: true},
		{name: "nft", apply: p.nft.Apply}, {name: "podlink", apply: p.podLinks.Apply, extra: true},
		{name: "route", apply: a.routes.Apply}, {name: "radv", apply: p.radv.Apply, extra: true},
	}
	return p, nil
}

func (p *plane) String() string         { return "data plane" }
func (p *plane) Ready() <-chan struct{} { return p.ready }

// Close releases the sockets.
func (p *plane) Close() error {
	return errors.Join(p.nft.Close(), p.tunnels.Close(), p.podLinks.Close(), p.radv.Close())
}

// Run keeps the kernel as it should be until ctx ends, and leaves it so.
func (p *plane) Run(ctx context.Context) error {
	task.Loop(ctx, p.a.pulses.round(p.String(), p.step),
		p.a.routes.Changed(), p.nft.Changed(), p.tunnels.Changed(), p.podLinks.Changed(), p.radv.Changed())
	return nil
}

// step brings the kernel from whatever it is to what it should be, and asks for
// another try of what failed.
func (p *plane) step(ctx context.Context) task.Next {
	news := p.a.metrics.news.Swap(0)
	in := p.a.in.gather()
	next := task.Next{Changed: in.all}
	learned, heard := in.rib.routes()
	p.a.collector.heard(len(learned))
	passed, again := p.a.origin.pass(in.origin, learned, time.Now())
	next = next.Within(again)
	peers, pods := in.peers(p.a.cfg.Node), in.pods.list
	state, problems := felix.Desired(felix.Input{
		Self: p.a.cfg.Node, Snapshot: in.snapshot,
		Learned: passed, LearnedSynced: heard,
		Host: in.host, HostSynced: true,
		Endpoints: pods, EndpointsSynced: true,
		OwnTunnels: in.tunnels, PeerWays: peers.ways, Unnumbered: peers.unnumbered, Speakers: peers.pods,
	})
	p.problems.set(problems)
	p.a.podMTU.set(state.MTU.Pod)
	p.last.Store(&state)
	outcome := carried
	for _, s := range p.sinks {
		outcome = max(outcome, judge(s, p.hand(ctx, s, state), pods))
	}
	p.a.metrics.carries(news, outcome < failed, time.Now())
	if outcome < failed {
		p.carries(in, state)
	}
	if outcome != carried {
		next = next.Within(retryAfter)
	}
	return next
}

// carries tells what the kernel has, once it has the state that in asks for.
func (p *plane) carries(in gathered, state felix.State) {
	p.up.Set(felix.ReadyTunnels(in.tunnels, p.a.links.Host()))
	p.a.endpoints.settle(writerPlane, in.pods.rev)
	p.a.in.floating.Set(slices.Concat(state.Rules.Floating.Announced(), givenInPools(in.pods.list, in.cluster.Pools)))
	p.pass()
}

// desired is the state that the sinks were told last. It must not be changed.
func (p *plane) desired() felix.State {
	if s := p.last.Load(); s != nil {
		return *s
	}
	return felix.State{}
}

// The outcomes of a step, from good to bad.
const (
	carried = iota // all is as it should be
	partial        // some routes are refused, none of a pod's
	failed         // the kernel is not known to carry this node's pods
)

// judge tells how bad an error of a sink is: one route that the kernel refuses
// is no reason to keep pods from starting, unless it is a pod's own.
func judge(s sink, err error, pods []model.Endpoint) int {
	switch {
	case err == nil:
		return carried
	case s.extra:
		return partial
	}
	refused, ok := err.(*route.Refused) //nolint:errorlint // joined with anything else it is no longer only that
	if !ok {
		return failed
	}
	for _, pod := range pods {
		for _, addr := range pod.Addresses {
			if slices.ContainsFunc(refused.Prefixes, func(p netip.Prefix) bool { return p.IsSingleIP() && p.Addr() == addr }) {
				return failed
			}
		}
	}
	return partial
}

// pass opens the gate of what waits for the data plane, once.
func (p *plane) pass() {
	select {
	case <-p.ready:
	default:
		p.a.gates.pass(gateKernel)
		close(p.ready)
	}
}

// hand gives one sink the state, and logs a complaint when it is a new one.
func (p *plane) hand(ctx context.Context, s sink, state felix.State) error {
	start := time.Now()
	err := s.apply(ctx, state)
	p.a.metrics.observe(s.name, start, err)
	said := ""
	if err != nil && ctx.Err() == nil {
		said = err.Error()
	}
	if said != p.failing[s.name] {
		p.failing[s.name] = said
		if said != "" {
			p.a.log.Warn("kernel refuses the desired state", "sink", s.name, "error", err)
		} else {
			p.a.log.Info("kernel accepts the desired state again", "sink", s.name)
		}
	}
	return err
}
