package gobgp

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
)

// Severity is the level of the speaker's log: what the node's BGPConfiguration
// asks for (logSeverityScreen), else that of the process.
type Severity struct{ requested atomic.Pointer[slog.Level] }

// Ask takes a value of logSeverityScreen; an empty one, and one that says
// nothing, leave it to the process.
func (s *Severity) Ask(text string) {
	level, ok := severities[strings.ToLower(text)]
	if !ok {
		s.requested.Store(nil)
		return
	}
	s.requested.Store(&level)
}

var severities = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn,
	"error": slog.LevelError, "fatal": slog.LevelError, "panic": slog.LevelError,
}

// Of gives a logger that writes where l does.
func (s *Severity) Of(l *slog.Logger) *slog.Logger { return slog.New(levelled{l.Handler(), s}) }

type levelled struct {
	slog.Handler
	severity *Severity
}

func (h levelled) Enabled(ctx context.Context, l slog.Level) bool {
	if requested := h.severity.requested.Load(); requested != nil {
		return l >= *requested
	}
	return h.Handler.Enabled(ctx, l)
}

func (h levelled) WithAttrs(as []slog.Attr) slog.Handler {
	return levelled{h.Handler.WithAttrs(as), h.severity}
}

func (h levelled) WithGroup(name string) slog.Handler {
	return levelled{h.Handler.WithGroup(name), h.severity}
}
