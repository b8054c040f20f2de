package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// silence is what the API server was last asked for in vain. What was read before
// stays in force meanwhile, so it has to be said how old that is.
type silence struct {
	log *slog.Logger

	mu      sync.Mutex
	since   time.Time
	refused map[*feed]error
	later   map[*feed]int // how often in a row the server has said that it is busy
}

// busyMost is how often in a row a server may be too busy, as it is when it has just
// started, before that is told.
const busyMost = 10

// received notes how a request went, and logs the first that fails and that none does
// any more. A watch that is only too old is no failure: a list follows it; nor is the answer of a server that
// does not stream lists (Invalid), which is asked for a plain one next.
func (s *silence) received(f *feed, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return // requested no more
	}
	if !apierrors.IsTooManyRequests(err) {
		delete(s.later, f)
	} else if s.later[f]++; s.later[f] < busyMost {
		return
	}
	silent := len(s.refused) > 0
	if err == nil || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsInvalid(err) {
		delete(s.refused, f)
	} else {
		s.refused[f] = err
	}
	switch {
	case !silent && len(s.refused) > 0:
		s.since = time.Now()
		s.log.Warn("the API server does not answer; what it said before stays in force", "resource", f.resource, "error", err)
	case silent && len(s.refused) == 0:
		s.log.Info("the API server answers again", "after", time.Since(s.since).Round(time.Millisecond))
	}
}

// forget drops what nobody asks for any more.
func (s *silence) forget(f *feed) { s.received(f, nil) }

// problems has one while any request fails.
func (s *silence) problems(node model.NodeName) []model.Problem {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refused) == 0 {
		return nil
	}
	feeds := slices.SortedFunc(maps.Keys(s.refused), func(a, b *feed) int { return cmp.Compare(a.resource, b.resource) })
	err := s.refused[feeds[0]]
	var names []string
	for _, f := range feeds {
		names = append(names, f.resource)
	}
	var requested *url.Error
	if errors.As(err, &requested) {
		err = requested.Err
	}
	return []model.Problem{{
		Object: model.Ref{Kind: "Node", Name: string(node)}, Reason: "APIServerSilent",
		Message: fmt.Sprintf("since %s the API server gives no %s to this node: %v; what it said before stays in force",
			s.since.UTC().Format(time.RFC3339), strings.Join(slices.Compact(names), ", "), err),
	}}
}

// levelFilter is a log that has at Debug what client-go says, at Error and once for each
// resource and try, of requests that fail: silence tells that.
type levelFilter struct{ slog.Handler }

const failedToWatch = "Failed to watch"

func (q levelFilter) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == failedToWatch {
		r.Level = slog.LevelDebug
		if !q.Enabled(ctx, r.Level) {
			return nil
		}
	}
	return q.Handler.Handle(ctx, r)
}

func (q levelFilter) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levelFilter{q.Handler.WithAttrs(attrs)}
}

func (q levelFilter) WithGroup(name string) slog.Handler {
	return levelFilter{q.Handler.WithGroup(name)}
}
