package agent

import (
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

// speech tells the speaker what to say and hands on what it hears. The speaker
// is made when it starts, because it has to know whether an earlier process
// left routes in the kernel.
type speech struct {
	loop
	routes   *route.Reconciler
	taken    *problemList // ports that others have
	asked    task.Cell[asked]
	unmet    task.Cell[[]model.Problem] // of what BGP is told by
	pressure task.Cell[[]model.Problem] // of a route reflector
	ready    chan struct{}
	told     task.Cell[told]
	failure  task.Cell[string] // of the last apply, "" for none

	leaving bgp.Shutdown       // owned by loop's goroutine
	drained task.Cell[*string] // the step of a drain that all peers were told of

	refusedNow refusedCounts

	severity gobgp.Severity
}

// asked is what BGP is told by.
type asked struct {
	snapshot model.Snapshot
	ways     bgp.Ways
}

// told is the configuration that the speaker was given, and when it last
// differed from the one before.
type told struct {
	since  time.Time
	config bgp.Config
}

// rib is what the speaker has heard up to a moment, which version counts.
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

func newSpeech(a *agent) *speech {
	return &speech{loop: a.newLoop("bgp"), routes: a.routes, taken: &a.own.bgp, ready: make(chan struct{})}
}

// Ready is closed once the speaker was told something.
func (s *speech) Ready() <-chan struct{} { return s.ready }

// Run speaks until ctx ends. It stops without a Cease, so that peers keep the
// node's routes while it restarts (RFC 4724).
func (s *speech) Run(ctx context.Context) error {
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

// loops are four: one finds out what BGP is told by, one tells it, and two, once
// it was told something, hear what comes of it and look whether all is well.
func (s *speech) loops(ctx context.Context, speaker *gobgp.Speaker) {
	var others sync.WaitGroup
	defer others.Wait()
	s.ask()
	others.Go(func() { task.Loop(ctx, func(context.Context) task.Next { return s.ask() }) })
	hear := sync.OnceFunc(func() {
		close(s.ready)
		others.Go(func() {
			task.Loop(ctx, func(context.Context) task.Next { return s.hear(speaker) }, speaker.Changed())
		})
		others.Go(func() { task.Loop(ctx, func(context.Context) task.Next { return s.review(speaker) }) })
	})
	s.repeat(ctx, func(ctx context.Context) task.Next {
		defer hear()
		return s.apply(ctx, speaker)
	})
}

// ask keeps what BGP is told by. Most of what changes with a pod or a link is
// nothing to BGP.
func (s *speech) ask() task.Next {
	in := s.in.gather()
	s.asked.Set(asked{in.snapshot, in.lookups()})
	return task.Next{Changed: in.ofBGP}
}

// hear hands on that the speaker has heard something, or was told something else.
func (s *speech) hear(speaker *gobgp.Speaker) task.Next {
	_, toldChanged := s.told.Get()
	failure, failureChanged := s.failure.Get()
	s.gate(speaker, failure)
	s.metrics.heard(time.Now())
	s.in.rib.Set(rib{s.in.rib.Value().version + 1, speaker})
	return task.Next{Changed: []<-chan struct{}{toldChanged, failureChanged}}
}

// apply hands the speaker what the cluster asks for; it asks to do so again after
// a failure, or because another step is due.
func (s *speech) apply(ctx context.Context, speaker *gobgp.Speaker) task.Next {
	asked, changed := s.asked.Get()
	next := task.Next{Changed: []<-chan struct{}{changed}}
	snap := asked.snapshot
	next.After = s.leaving.Fill(&snap, s.node, time.Now())
	config, problems := bgp.DesiredOn(snap, s.node, asked.ways)
	s.severity.Ask(bgp.LogSeverity(snap, s.node))
	s.unmet.Set(problems)
	news := s.in.told.Set(&config) // there may be another way to a peer
	// Also what it has been told before: a session that it could not make anew,
	// for one, is made then.
	start := time.Now()
	err := s.hand(ctx, "bgp", func() error { return speaker.Apply(ctx, config) })
	if news {
		s.told.Set(told{start, config})
	}
	taken := portsTaken(s.node, config, err, s.log)
	s.taken.set(taken)
	if err != nil {
		s.failure.Set(err.Error())
		return next.Within(retryAfter)
	}
	s.failure.Set("")
	s.noteDrain(snap)
	if len(taken) > 0 {
		return next.Within(retryAfter) // to see it free
	}
	return next
}

// noteDrain remembers how far a drain of the node is, now that the peers were
// told.
func (s *speech) noteDrain(snap model.Snapshot) {
	self, ok := findNode(snap, s.node)
	if !ok {
		return
	}
	step := bgp.DrainStep(self)
	if old := s.drained.Value(); s.drained.Set(&step) && (old != nil || step != "") {
		s.log.Info("bgp drain", "step", step)
	}
}

// gate passes once a first session is established, or when there is none to
// wait for. It does not close again: a lost session is no reason to take the
// node out of service.
func (s *speech) gate(speaker *gobgp.Speaker, failure string) {
	if failure != "" {
		s.gates.waitFirst(gateBGP, failure)
		return
	}
	if up, configured := speaker.Established(); up > 0 || configured == 0 {
		s.gates.pass(gateBGP)
		return
	}
	s.gates.waitFirst(gateBGP, "no session is established yet")
}

// hears reports whether anybody else announces a block, or a part of it, now.
func (s *speech) hears(block netip.Prefix) bool {
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

// configured is what the speaker was told last, and since when.
func (s *speech) configured() (bgp.Config, time.Time) {
	t := s.told.Value()
	return t.config, t.since
}

func (s *speech) peers() []model.PeerStatus {
	if speaker := s.in.rib.Value().speaker; speaker != nil {
		return speaker.Peers()
	}
	return nil
}

// sessions is peers without counters, for whoever looks often.
func (s *speech) sessions() []model.PeerStatus {
	if speaker := s.in.rib.Value().speaker; speaker != nil {
		return speaker.Sessions()
	}
	return nil
}
