package agent

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// speech tells the speaker what to say and hands on what it hears. The speaker
// is made when it starts, because it has to know whether an earlier process
// left routes in the kernel.
type speech struct {
	a        *agent
	look     hint
	speaker  atomic.Pointer[gobgp.Speaker]
	problems problemList
	load     reflectorLoad
	ready    chan struct{}
	asked    atomic.Pointer[bgp.Config] // what it is being told, before it has done it
	told     atomic.Pointer[told]

	leaving departure              // owned by loop's goroutine
	failure error                  // of the last apply; owned by loop's goroutine
	said    string                 // what of it was logged
	drained atomic.Pointer[string] // the step of a drain that all peers were told of

	refusedNow refusedCounts

	ways     waysBook
	severity severity
}

// told is the configuration that the speaker was given, and when it last
// differed from the one before.
type told struct {
	config bgp.Config
	since  time.Time
}

func newSpeech(a *agent) *speech {
	s := &speech{a: a, look: newHint(), problems: problemList{log: a.log}, ready: make(chan struct{})}
	s.ways.read = func(asks bgp.Asks) bgp.Ways {
		pods, _ := a.endpoints.Snapshot()
		return asks.Ways(a.links.Host(), pods)
	}
	return s
}

func (s *speech) String() string         { return "bgp" }
func (s *speech) Ready() <-chan struct{} { return s.ready }

// Run speaks until ctx ends. It stops without a Cease, so that peers keep the
// node's routes while it restarts (RFC 4724).
func (s *speech) Run(ctx context.Context) error {
	restarting := s.a.routes.Stats().Adopted > 0
	s.a.log.Info("speaker starting", "restarting", restarting)
	speaker := gobgp.New(gobgp.Options{Logger: s.severity.of(s.a.log), Restarting: restarting})
	s.speaker.Store(speaker)
	done := make(chan error, 1)
	own, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	go func() { done <- speaker.Run(own) }()
	s.loop(ctx, speaker)
	stop()
	return <-done
}

func (s *speech) loop(ctx context.Context, speaker *gobgp.Speaker) {
	retry := s.apply(ctx, speaker)
	close(s.ready)
	for {
		s.gate(speaker)
		select {
		case <-ctx.Done():
			return
		case <-s.look:
			retry = s.apply(ctx, speaker)
		case <-retry:
			retry = s.apply(ctx, speaker)
		case <-speaker.Changed():
			s.a.metrics.heard(time.Now())
			s.a.plane.look.notify()
			s.a.sessions.notify()
		}
	}
}

// apply hands the speaker what the cluster asks for; it returns a channel that
// says when to do so again, after a failure or because another step is due.
func (s *speech) apply(ctx context.Context, speaker *gobgp.Speaker) <-chan time.Time {
	s.a.pulses.begin(s.String())
	defer s.a.pulses.rest(s.String())
	snap := s.a.snapshot()
	next := s.leaving.fill(&snap, s.a.cfg.Node, time.Now())
	config, problems := bgp.DesiredOn(snap, s.a.cfg.Node, s.ways.ask(snap))
	s.severity.ask(bgp.LogSeverity(snap, s.a.cfg.Node))
	s.load.asked(problems)
	s.judge(config)
	old := s.asked.Swap(&config)
	changed := old == nil || !reflect.DeepEqual(*old, config)
	if changed {
		s.a.plane.look.notify() // there may be another way to a peer
	}
	// Also what it has been told before: a session that it could not make anew,
	// for one, is made then.
	start := time.Now()
	err := speaker.Apply(ctx, config)
	s.a.metrics.observe("bgp", start, err)
	if changed {
		s.told.Store(&told{config, start})
	}
	s.a.sessions.notify()
	s.failure = err
	taken := s.a.portsTaken(config, err)
	s.a.own.bgp.set(taken)
	if err != nil && ctx.Err() == nil {
		s.complain(err)
		return time.After(retryAfter)
	}
	if err == nil {
		s.said = ""
		s.noteDrain(snap)
	}
	if len(taken) > 0 {
		return time.After(retryAfter) // to see it free
	}
	if next > 0 {
		return time.After(next)
	}
	return nil
}

// noteDrain remembers how far a drain of the node is, now that the peers were
// told.
func (s *speech) noteDrain(snap model.Snapshot) {
	self, ok := findNode(snap, s.a.cfg.Node)
	if !ok {
		return
	}
	step := bgp.DrainStep(self)
	if old := s.drained.Swap(&step); old == nil || *old != step {
		if old != nil || step != "" {
			s.a.log.Info("bgp drain", "step", step)
		}
		s.a.conds.changed.notify()
	}
}

// complain logs a failure when it is another one than before.
func (s *speech) complain(err error) {
	if s.said != err.Error() {
		s.said = err.Error()
		s.a.log.Warn("bgp apply failed", "error", err)
	}
}

// gate passes once a first session is established, or when there is none to
// wait for. It does not close again: a lost session is no reason to take the
// node out of service.
func (s *speech) gate(speaker *gobgp.Speaker) {
	if s.failure != nil {
		s.a.conds.waitFirst(gateBGP, s.failure.Error())
		return
	}
	if up, configured := speaker.Established(); up > 0 || configured == 0 {
		s.a.conds.pass(gateBGP)
		return
	}
	s.a.conds.waitFirst(gateBGP, "no session is established yet")
}

// learned is what the speaker has heard, and whether it has heard all.
func (s *speech) learned() (routes []model.Learned, converged bool) {
	speaker := s.speaker.Load()
	if speaker == nil {
		return nil, false
	}
	select {
	case <-speaker.Converged():
		converged = true
	default:
	}
	return speaker.Learned(), converged
}

// hears reports whether anybody else announces a block, or a part of it, now.
func (s *speech) hears(block netip.Prefix) bool {
	routes, _ := s.learned()
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
	if t := s.told.Load(); t != nil {
		return t.config, t.since
	}
	return bgp.Config{}, time.Time{}
}

func (s *speech) peers() []model.PeerStatus {
	if speaker := s.speaker.Load(); speaker != nil {
		return speaker.Peers()
	}
	return nil
}

// peerWays are what the data plane has to know so that peers are reached.
func (s *speech) peerWays() []felix.PeerWay {
	config := s.asked.Load()
	if config == nil {
		return nil
	}
	var out []felix.PeerWay
	for _, p := range config.Peers {
		if p.ReachableBy.IsValid() {
			out = append(out, felix.PeerWay{Peer: p.Address, Gateway: p.ReachableBy})
		}
	}
	return out
}

// unnumbered are the links that peers are told apart by.
func (s *speech) unnumbered() []string {
	config := s.asked.Load()
	if config == nil {
		return nil
	}
	var out []string
	for _, p := range config.Peers {
		if zone := p.Address.Zone(); zone != "" {
			out = append(out, zone)
		}
	}
	return out
}

// sessions is peers without counters, for whoever looks often.
func (s *speech) sessions() []model.PeerStatus {
	if speaker := s.speaker.Load(); speaker != nil {
		return speaker.Sessions()
	}
	return nil
}
