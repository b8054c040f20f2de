package gobgp

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestSeverity(t *testing.T) {
	var out bytes.Buffer
	var s Severity
	log := s.Of(slog.New(slog.NewTextHandler(&out, nil))).With("peer", "192.0.2.1")
	for _, c := range []struct{ requested, says string }{
		{"", "info warn error"}, {"Warning", "warn error"}, {"Error", "error"}, {"debug", "debug info warn error"},
		{"Trace", "trace debug info warn error"}, {"Loud", "info warn error"},
	} {
		s.Ask(c.requested)
		out.Reset()
		log.Log(t.Context(), slog.LevelDebug-4, "trace")
		log.Debug("debug")
		log.Info("info")
		log.Warn("warn")
		log.Error("error")
		var stated []string
		for line := range strings.Lines(out.String()) {
			_, after, _ := strings.Cut(line, " msg=")
			word, _, _ := strings.Cut(after, " ")
			stated = append(stated, word)
		}
		if got := strings.Join(stated, " "); got != c.says {
			t.Errorf("%q: said %q, want %q", c.requested, got, c.says)
		}
	}
}
