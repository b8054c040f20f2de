package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
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
	look     hint
	nft      *nft.Reconciler
	tunnels  *tunnel.Reconciler
	podLinks *podlink.Reconciler
	radv     *radv.Advertiser
	sinks    []sink
	problems problemList
	ready    chan struct{}
	// tunnelBook has this node's tunnel addresses, known here before the API
	// server knows them.
	tunnelBook tunnelBook
	failing    map[string]string // sink → what it last complained of
	last       atomic.Pointer[felix.State]
	floating   floatingBook
	seen       uint64           // version of the host that the last step worked with
	workloads  []model.Workload // that the last step knew of
}

func newPlane(a *agent) (*plane, error) {
	p := &plane{a: a, look: newHint(), problems: problemList{log: a.log}, ready: make(chan struct{}), failing: map[string]string{}}
	p.tunnelBook.look, p.tunnelBook.said, p.tunnelBook.told = p.look, a.owns, a.tellLive
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
	for ctx.Err() == nil {
		p.a.pulses.begin(p.String())
		retry := p.step(ctx)
		p.a.pulses.rest(p.String())
		for again := false; !again; {
			again = p.await(ctx, retry)
		}
	}
	return nil
}

// await waits for something to happen, and reports whether it is news: a step
// takes in what the kernel has told by then, and is told of it once more.
func (p *plane) await(ctx context.Context, retry <-chan time.Time) bool {
	select {
	case <-ctx.Done():
	case <-p.look:
	case <-p.a.endpoints.changed:
	case <-p.a.links.Changed():
		_, version := p.a.links.Look()
		return version != p.seen
	case <-p.a.routes.Changed():
	case <-p.nft.Changed():
	case <-p.tunnels.Changed():
	case <-p.podLinks.Changed():
	case <-p.radv.Changed():
	case <-retry:
	}
	return true
}

// step brings the kernel from whatever it is to what it should be. A non-nil
// channel says when to try again what failed.
func (p *plane) step(ctx context.Context) <-chan time.Time {
	news := p.a.metrics.news.Swap(0)
	pods, rev := p.a.endpoints.Snapshot()
	learned, heard := p.a.speech.learned()
	p.a.collector.heard(len(learned))
	own := p.tunnelBook.get()
	host, version := p.a.links.Look()
	if version != p.seen {
		p.seen = version
		p.a.apiConns.host(host)
		p.a.address.look.notify()
	}
	if p.a.speech.ways.stale(host, pods) {
		p.a.speech.look.notify()
	}
	snapshot := p.a.snapshot()
	if !reflect.DeepEqual(snapshot.Workloads, p.workloads) {
		p.workloads = snapshot.Workloads
		p.a.speech.look.notify()
	}
	speakers := p.a.speech.speakers(snapshot)
	state, problems := felix.Desired(felix.Input{
		Self: p.a.cfg.Node, Snapshot: snapshot,
		Learned: p.a.origin.pass(learned), LearnedSynced: heard,
		Host: host, HostSynced: true,
		Endpoints: pods, EndpointsSynced: true,
		OwnTunnels: own, PeerWays: p.a.speech.peerWays(), Unnumbered: p.a.speech.unnumbered(), Speakers: speakers,
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
		p.tunnelBook.stands(own, p.a.links.Host())
		p.a.endpoints.settle(writerPlane, rev)
		if p.floating.set(slices.Concat(state.Rules.Floating.Announced(), givenInPools(pods, p.a.cluster.Snapshot().Pools))) {
			p.a.speech.look.notify()
		}
		p.up()
	}
	if outcome == carried {
		return nil
	}
	return time.After(retryAfter)
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

// up opens the gate of what waits for the data plane, once.
func (p *plane) up() {
	select {
	case <-p.ready:
	default:
		p.a.conds.pass(gateKernel)
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
