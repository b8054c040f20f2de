package app

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

// sink is a room that gets the whole desired state.
type sink struct {
	name  string
	apply func(context.Context, felix.State) error
	// optional: its failure does not hold up the answer to an ADD. Pods of this node
	// need no tunnel, and a kernel that has none carries what goes without.
	optional bool
}

// dataplane computes the desired state of the kernel whenever something changed,
// and hands it to the sinks. It is the only caller of theirs, so host routes
// and rules have one writer.
type dataplane struct {
	loop
	origin    *origin
	endpoints *endpoints
	gc        *gcTuner
	routes    *route.Reconciler
	nft       *nft.Reconciler
	tunnels   *tunnel.Reconciler
	podLinks  *podlink.Reconciler
	radv      *radv.Advertiser
	sinks     []sink
	ready     chan struct{}
	last      atomic.Pointer[felix.State]      // that the sinks were given
	up        task.Cell[felix.TunnelAddresses] // those of this node whose device stands
	holes     task.Cell[[]netip.Prefix]        // see dropping
}

func newDataplane(a *agent) (*dataplane, error) {
	p := &dataplane{
		loop: a.newLoop("data plane"), origin: a.origin, endpoints: a.endpoints, gc: &a.gc, routes: a.routes,
		ready: make(chan struct{}),
	}
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
		{name: "sysctl", apply: knobs.Apply}, {name: "tunnel", apply: p.tunnels.Apply, optional: true},
		{name: "nft", apply: p.nft.Apply}, {name: "podlink", apply: p.podLinks.Apply, optional: true},
		{name: "route", apply: a.routes.Apply}, {name: "radv", apply: p.radv.Apply, optional: true},
	}
	return p, nil
}

// Ready is closed once the kernel has the first desired state.
func (p *dataplane) Ready() <-chan struct{} { return p.ready }

// Close releases the sockets.
func (p *dataplane) Close() error {
	return errors.Join(p.nft.Close(), p.tunnels.Close(), p.podLinks.Close(), p.radv.Close())
}

// Run keeps the kernel as it should be until ctx ends, and leaves it so.
func (p *dataplane) Run(ctx context.Context) error {
	p.repeat(ctx, p.step, p.routes.Changed(), p.nft.Changed(), p.tunnels.Changed(), p.podLinks.Changed(), p.radv.Changed())
	return nil
}

// step brings the kernel from whatever it is to what it should be, and asks for
// another try of what failed.
func (p *dataplane) step(ctx context.Context) task.Next {
	news := p.metrics.news.Swap(0)
	in := p.in.gather()
	next := task.Next{Changed: in.ofDataplane}
	learned, converged := in.rib.routes()
	p.gc.learned(len(learned))
	passed, again := p.origin.pass(in.origin, learned, time.Now())
	next = next.Within(again)
	peers, pods := in.peers(p.node), in.pods.list
	state, problems := felix.Desired(felix.Input{
		Self: p.node, Snapshot: in.snapshot,
		Learned: passed, LearnedSynced: converged,
		Host: in.host, HostSynced: true,
		Endpoints: pods, EndpointsSynced: true,
		OwnTunnels: in.tunnels, PeerRoutes: peers.routes, Unnumbered: peers.unnumbered, Speakers: peers.pods,
	})
	p.problems.set(problems)
	p.last.Store(&state)
	outcome := carried
	for _, s := range p.sinks {
		err := p.hand(ctx, s.name, func() error { return s.apply(ctx, state) })
		outcome = max(outcome, outcomeOf(s, err, pods))
	}
	p.metrics.carries(news, outcome < failed, time.Now())
	if outcome < failed {
		p.carries(in, state)
		p.holes.Set(p.dropping(in, state, outcome))
	}
	if outcome != carried {
		next = next.Within(retryAfter)
	}
	return next
}

// carries tells what the kernel has, once it has the state that in asks for.
func (p *dataplane) carries(in gathered, state felix.State) {
	p.up.Set(felix.ReadyTunnels(in.tunnels, in.host))
	p.endpoints.settle(writerDataplane, in.pods.rev)
	p.in.floating.Set(slices.Concat(state.Rules.Floating.Announced(), felix.GivenInPools(in.pods.list, in.cluster.Pools)))
	p.pass()
}

// dropping are the node's blocks where what is sent to a free address is dropped. Where
// not all is as it should be, none is known to be so.
func (p *dataplane) dropping(in gathered, state felix.State, outcome int) (out []netip.Prefix) {
	for _, b := range in.snapshot.Blocks {
		if outcome == carried && b.Node == p.node && state.Drops(b.CIDR.Masked()) {
			out = append(out, b.CIDR.Masked())
		}
	}
	return out
}

// desired is the state that the sinks were given last. It must not be changed.
func (p *dataplane) desired() felix.State {
	if s := p.last.Load(); s != nil {
		return *s
	}
	return felix.State{}
}

// podMTU is the largest packet of pods, in bytes, as last computed; 0 until then.
func (p *dataplane) podMTU() int { return p.desired().MTU.Pod }

// The outcomes of a step, from good to bad.
const (
	carried = iota // all is as it should be
	partial        // some routes are refused, none of a pod's
	failed         // the kernel is not known to carry this node's pods
)

// outcomeOf tells how bad an error of a sink is: one route that the kernel refuses
// is no reason to keep pods from starting, unless it is a pod's own.
func outcomeOf(s sink, err error, pods []model.Endpoint) int {
	switch {
	case err == nil:
		return carried
	case s.optional:
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
func (p *dataplane) pass() {
	select {
	case <-p.ready:
	default:
		p.gates.pass(gateKernel)
		close(p.ready)
	}
}
