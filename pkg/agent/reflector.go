package agent

import (
	"context"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// reflectorLoad keeps what the cluster asks for in vain beside what the node is
// asked too much of: the second changes with every route.
type reflectorLoad struct {
	mu       sync.Mutex
	problems []model.Problem // of the configuration
	over     []model.Problem // of the load
	heard    []model.Problem // of what peers announce
	told     []model.Problem // over, as the node's condition has it
	known    bool            // told is that: not what an earlier process wrote
}

// asked takes the problems of a new configuration.
func (l *reflectorLoad) asked(problems []model.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.problems = problems
}

// judge compares the clients that cfg has and the routes that were learned with
// what a reflector can bear.
func (s *speech) judge(cfg bgp.Config) {
	routes := 0
	if speaker := s.a.in.rib.Value().speaker; speaker != nil {
		routes = speaker.Routes()
	}
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	s.load.over = bgp.ReflectorLoad(cfg, s.a.cfg.Node, routes)
	s.problems.set(slices.Concat(s.load.problems, s.load.over, s.load.heard))
}

// listen looks at what peers announce.
func (s *speech) listen(cfg bgp.Config) {
	speaker := s.a.in.rib.Value().speaker
	if speaker == nil {
		return
	}
	heard := bgp.HeardProblems(cfg, speaker.Peers(), speaker.Odd())
	s.load.mu.Lock()
	defer s.load.mu.Unlock()
	s.load.heard = heard
}

// tellReflector keeps the node's condition RouteReflectorPressure true to the
// load.
func (a *agent) tellReflector(ctx context.Context) error {
	cfg, _ := a.speech.configured()
	a.speech.listen(cfg)
	a.speech.judge(cfg)
	l := &a.speech.load
	l.mu.Lock()
	over, same := l.over, l.known && slices.Equal(l.over, l.told)
	l.mu.Unlock()
	if same {
		return nil
	}
	reason, message := "ReflectorWithinBounds", "the routes and clients of this route reflector are as many as it can serve"
	if len(over) > 0 {
		reason, message = over[0].Reason, over[0].Message
	}
	if err := a.cluster.SetReflectorPressure(ctx, len(over) > 0, reason, message); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told, l.known = over, true
	return nil
}
