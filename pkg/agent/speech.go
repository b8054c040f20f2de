package agent

import (
	"context"
	"reflect"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/gobgp"
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
	ready    chan struct{}
	told     atomic.Pointer[told]

	refusedNow refusedCounts
}

// told is the configuration that the speaker was given, and when it last
// differed from the one before.
type told struct {
	config bgp.Config
	since  time.Time
}

func newSpeech(a *agent) *speech {
	return &speech{a: a, look: newHint(), problems: problemList{log: a.log}, ready: make(chan struct{})}
}

func (s *speech) String() string         { return "bgp" }
func (s *speech) Ready() <-chan struct{} { return s.ready }

// Run speaks until ctx ends. It stops without a Cease, so that peers keep the
// node's routes while it restarts (RFC 4724).
func (s *speech) Run(ctx context.Context) error {
	restarting := s.a.routes.Stats().Adopted > 0
	s.a.log.Info("speaker starting", "restarting", restarting)
	speaker := gobgp.New(gobgp.Options{Logger: s.a.log, Restarting: restarting})
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
			s.a.plane.look.notify()
			s.a.sessions.notify()
		}
	}
}

// apply hands the speaker what the cluster asks for; on failure it returns a
// channel that says when to try again.
func (s *speech) apply(ctx context.Context, speaker *gobgp.Speaker) <-chan time.Time {
	config, problems := bgp.Desired(s.a.snapshot(), s.a.cfg.Node)
	s.problems.set(problems)
	start := time.Now()
	err := speaker.Apply(ctx, config)
	s.a.metrics.observe("bgp", start, err)
	if old := s.told.Load(); old == nil || !reflect.DeepEqual(old.config, config) {
		s.told.Store(&told{config, start})
	}
	s.a.sessions.notify()
	if err != nil && ctx.Err() == nil {
		s.a.log.Warn("bgp apply failed", "error", err)
		return time.After(retryAfter)
	}
	return nil
}

// gate passes once a first session is established, or when there is none to
// wait for. It does not close again: a lost session is no reason to take the
// node out of service.
func (s *speech) gate(speaker *gobgp.Speaker) {
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
