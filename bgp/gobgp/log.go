package gobgp

import (
	"context"
	"log/slog"
)

// quiet makes GoBGP's own log one level softer: what it calls information is
// debugging here, since the speaker reports sessions itself.
func quiet(l *slog.Logger) *slog.Logger {
	return slog.New(&softer{l.Handler().WithAttrs([]slog.Attr{slog.String("library", "gobgp")})})
}

type softer struct{ slog.Handler }

func (h *softer) Enabled(ctx context.Context, l slog.Level) bool {
	return h.Handler.Enabled(ctx, softened(l))
}

func (h *softer) Handle(ctx context.Context, r slog.Record) error {
	r.Level = softened(r.Level)
	return h.Handler.Handle(ctx, r)
}

func (h *softer) WithAttrs(as []slog.Attr) slog.Handler { return &softer{h.Handler.WithAttrs(as)} }

func (h *softer) WithGroup(name string) slog.Handler { return &softer{h.Handler.WithGroup(name)} }

func softened(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return l - 4
	}
	return l
}
