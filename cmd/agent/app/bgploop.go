package app

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix/route"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// bgpLoop gives the BGP speaker its configuration, and publishes what it receives.
// The speaker is made when the loop starts, because it has to know whether an
// earlier process left routes in the kernel.
type bgpLoop struct {
	loop
	routes   *route.Reconciler
	taken    *problemList // ports that others have
	input    task.Cell[bgpInput]
	unmet    task.Cell[[]model.Problem] // of the input
	pressure task.Cell[[]model.Problem] // of a route reflector
	ready    chan struct{}
	applied  task.Cell[applied]
	failure  task.Cell[string] // of the last apply, "" for none

	shutdown bgp.Shutdown       // owned by loop's goroutine
	drained  task.Cell[*string] // the step of the node's drain that all peers know

	refusedNow refusedCounts

	severity gobgp.Severity
}

// bgpInput is what bgp.DesiredOn decides by.
type bgpInput struct {
	snapshot model.Snapshot
	fib      bgp.FIB
}

// applied is the configuration that the speaker was given, and when it last
// differed from the one before.
type applied struct {
	since  time.Time
	config bgp.Config
}

// rib is what the speaker has received up to a moment, which version counts.
type rib struct {
	version uint64
	speaker *gobgp.Speaker // nil before it starts
}

// routes lists what was learned from peers, and whether that is all. To list
// them costs: who need not know leaves it.
func (r rib) routes() (routes []model.Learned, converged bool) {
	if r.speaker == nil {
		return nil, false
	}
	select {
	case <-r.speaker.Converged():
		converged = true
	default:
	}
	return r.speaker.Learned(), converged
}

func newBGPLoop(a *agent) *bgpLoop {
	return &bgpLoop{loop: a.newLoop("bgp"), routes: a.routes, taken: &a.own.bgp, ready: make(chan struct{})}
}

// Ready is closed once the speaker has its first configuration.
func (s *bgpLoop) Ready() <-chan struct{} { return s.ready }

// Run speaks until ctx ends. It stops without a Cease, so that peers keep the
// node's routes while it restarts (RFC 4724).
func (s *bgpLoop) Run(ctx context.Context) error {
	restarting := s.routes.Stats().Adopted > 0
	s.log.Info("speaker starting", "restarting", restarting)
	speaker := gobgp.New(gobgp.Options{Logger: s.severity.Of(s.log), Restarting: restarting})
	s.in.rib.Set(rib{speaker: speaker})
	done := make(chan error, 1)
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { done <- speaker.Run(own) }()
	s.loops(ctx, speaker)
	stop()
	return <-done
}

// loops are five: one gathers the input, one applies what follows from it, and once
// there is a configuration, one publishes what is received, one opens the gate, and
// one looks for problems.
func (s *bgpLoop) loops(ctx context.Context, speaker *gobgp.Speaker) {
	var others sync.WaitGroup
	defer others.Wait()
	start := func(step func() task.Next, always ...<-chan struct{}) {
		others.Go(func() { task.Loop(ctx, func(context.Context) task.Next { return step() }, always...) })
	}
	s.gatherInput()
	start(s.gatherInput)
	receive := sync.OnceFunc(func() {
		close(s.ready)
		start(func() task.Next { return s.receive(speaker) }, speaker.Changed())
		start(func() task.Next { return s.pass(ctx, speaker) })
		start(func() task.Next { return s.review(speaker) })
	})
	s.repeat(ctx, func(ctx context.Context) task.Next {
		defer receive()
		return s.apply(ctx, speaker)
	})
}

// gatherInput keeps the input. Most of what changes with a pod or a link is nothing
// to BGP.
func (s *bgpLoop) gatherInput() task.Next {
	in := s.in.gather()
	s.input.Set(bgpInput{in.snapshot, in.lookups()})
	return task.Next{Changed: in.ofBGP}
}

// receive publishes that the speaker has received something.
func (s *bgpLoop) receive(speaker *gobgp.Speaker) (next task.Next) {
	s.metrics.received(time.Now())
	s.in.rib.Set(rib{s.in.rib.Value().version + 1, speaker})
	return next
}

// apply hands the speaker what the cluster asks for; it asks to do so again after
// a failure, or because another step is due.
func (s *bgpLoop) apply(ctx context.Context, speaker *gobgp.Speaker) task.Next {
	var next task.Next
	input := get(&s.input, &next.Changed)
	snap := input.snapshot
	next.After = s.shutdown.Fill(&snap, s.node, time.Now())
	config, problems := bgp.DesiredOn(snap, s.node, input.fib)
	s.severity.Ask(bgp.LogSeverity(snap, s.node))
	s.unmet.Set(problems)
	news := s.in.config.Set(&config) // there may be another way to a peer
	// Also the same one as before: a session that could not be made anew, for one, is
	// made then.
	start := time.Now()
	err := s.hand(ctx, "bgp", func() error { return speaker.Apply(ctx, config) })
	s.failure.Set(s.failing["bgp"])
	if news {
		s.applied.Set(applied{start, config})
	}
	taken := portsTaken(s.node, config, err, s.log)
	s.taken.set(taken)
	if err == nil {
		s.noteDrain(snap)
	}
	if err != nil || len(taken) > 0 {
		return next.Within(retryAfter) // to see a port free, for one
	}
	return next
}

// noteDrain remembers how far a drain of the node is, now that the peers know.
func (s *bgpLoop) noteDrain(snap model.Snapshot) {
	self, ok := snap.Node(s.node)
	if !ok {
		return
	}
	step := bgp.DrainStep(self)
	if old := s.drained.Value(); s.drained.Set(&step) && (old != nil || step != "") {
		s.log.Info("bgp drain", "step", step)
	}
}

// pass opens the gate once tables were exchanged with the peers that there are: the next
// node of a rollout may restart only then. It does not close again: a lost session is no
// reason to take the node out of service.
func (s *bgpLoop) pass(ctx context.Context, speaker *gobgp.Speaker) (next task.Next) {
	if len(s.gates.waiting(gateBGP)) == 0 {
		return next
	}
	get(&s.in.rib, &next.Changed)
	get(&s.applied, &next.Changed)
	awaited := cmp.Or(get(&s.failure, &next.Changed), speaker.Awaited(ctx))
	s.gates.wait(gateBGP, awaited)
	if awaited != "" {
		return next.Within(500 * time.Millisecond)
	}
	return task.Next{}
}

// announced reports whether anybody else announces a block, or a part of it, now.
func (s *bgpLoop) announced(block netip.Prefix) bool {
	routes, _ := s.in.rib.Value().routes()
	return within(routes, block)
}

// within reports whether a route, of those sorted by prefix, leads into the block
// alone.
func within(routes []model.Learned, block netip.Prefix) bool {
	i, _ := slices.BinarySearchFunc(routes, block, func(l model.Learned, b netip.Prefix) int {
		return l.Prefix.Compare(b)
	})
	return i < len(routes) && block.Contains(routes[i].Prefix.Addr())
}

// configured is the configuration that the speaker has, and since when.
func (s *bgpLoop) configured() (bgp.Config, time.Time) {
	t := s.applied.Value()
	return t.config, t.since
}

func (s *bgpLoop) peers() []model.PeerStatus {
	if speaker := s.in.rib.Value().speaker; speaker != nil {
		return speaker.Peers()
	}
	return nil
}

// sessions is peers without counters, for whoever looks often.
func (s *bgpLoop) sessions() []model.PeerStatus {
	if speaker := s.in.rib.Value().speaker; speaker != nil {
		return speaker.Sessions()
	}
	return nil
}
