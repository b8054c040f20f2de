package agent

import (
	"log/slog"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// problemList holds the problems of one room and logs each when it comes and
// when it goes, not while it lasts.
type problemList struct {
	mu  sync.Mutex
	log *slog.Logger
	now []model.Problem
}

func (l *problemList) set(problems []model.Problem) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range problems {
		if !slices.Contains(l.now, p) {
			l.log.Warn("problem", "object", p.Object.String(), "field", p.Field, "reason", p.Reason, "message", p.Message)
		}
	}
	for _, p := range l.now {
		if !slices.Contains(problems, p) {
			l.log.Info("problem solved", "object", p.Object.String(), "field", p.Field, "reason", p.Reason)
		}
	}
	l.now = problems
}

func (l *problemList) get() []model.Problem {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now
}
