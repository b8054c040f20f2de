package gobgp

import (
	"context"
	"log/slog"
	"net/netip"
)

// filterLevel makes GoBGP's own log one level softer: what it calls information is
// debugging here, since the speaker reports sessions itself. heard is given what
// the log alone tells of a peer, at whatever level the log is kept.
func filterLevel(l *slog.Logger, received func(peerRecord)) *slog.Logger {
	return slog.New(&levelFilter{Handler: l.Handler().WithAttrs([]slog.Attr{slog.String("library", "gobgp")}), received: received})
}

// peerRecord is an attempt to connect that failed, a NOTIFICATION, or a hold
// timer that expired. GoBGP has no events for these while a session is being
// opened, and calls each of them a graceful restart where one is agreed on.
type peerRecord struct {
	peer          netip.Addr
	message       string
	err           string // of an attempt to connect, or a panic
	code, subcode uint8  // of a NOTIFICATION
}

// What is listened for.
const (
	logConnect  = "failed to connect"
	logSent     = "sent notification"
	logReceived = "received notification"
	logHold     = "hold timer expired"
	logPanic    = "recovered from a panic" // with a patch alone; without, it is the end of the process
)

type levelFilter struct {
	slog.Handler
	received func(peerRecord)
	peer     netip.Addr // whose log it is; the zero value: nobody's
}

func (h *levelFilter) Enabled(ctx context.Context, l slog.Level) bool {
	return h.peer.IsValid() || h.Handler.Enabled(ctx, softened(l))
}

func (h *levelFilter) Handle(ctx context.Context, r slog.Record) error {
	if h.peer.IsValid() {
		h.listen(r)
	}
	if r.Level = softened(r.Level); !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h *levelFilter) listen(r slog.Record) {
	switch r.Message {
	case logConnect, logSent, logReceived, logHold, logPanic:
	default:
		return
	}
	out := peerRecord{peer: h.peer, message: r.Message}
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "Error":
			out.err = a.Value.String()
		case "Code":
			out.code = uint8(a.Value.Int64())
		case "Subcode":
			out.subcode = uint8(a.Value.Int64())
		}
		return true
	})
	h.received(out)
}

// WithAttrs finds a peer's log by the attributes that GoBGP gives it.
func (h *levelFilter) WithAttrs(as []slog.Attr) slog.Handler {
	out := &levelFilter{h.Handler.WithAttrs(as), h.received, h.peer}
	if len(as) == 2 && as[0].Key == "Topic" && as[0].Value.String() == "Peer" && as[1].Key == "Key" {
		out.peer, _ = netip.ParseAddr(as[1].Value.String())
	}
	return out
}

func (h *levelFilter) WithGroup(name string) slog.Handler {
	return &levelFilter{h.Handler.WithGroup(name), h.received, h.peer}
}

func softened(l slog.Level) slog.Level {
	if l < slog.LevelWarn {
		return l - 4
	}
	return l
}
