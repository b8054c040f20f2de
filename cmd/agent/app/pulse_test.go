package app

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestHealthIsOfTheLoops has a loop hang: /healthz fails after three minutes and
// names it; a loop that waits for longer is well, and so is one that came back.
func TestHealthIsOfTheLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		p := newPulses(slog.New(slog.NewTextHandler(&log, nil)))
		s := &httpServer{reg: prometheus.NewRegistry(), gates: newGates(), pulses: p, show: func(*http.ServeMux) {}}
		mux := s.mux()
		health := func() (int, string) {
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
			return w.Code, w.Body.String()
		}
		p.begin("bgp")
		p.rest("bgp")
		p.begin("data plane")
		time.Sleep(hangsAfter - time.Second)
		if code, body := health(); code != http.StatusOK {
			t.Errorf("%d %s", code, body)
		}
		time.Sleep(2 * time.Second)
		for range 2 {
			if code, body := health(); code != http.StatusServiceUnavailable || body != "data plane: has been at one round for 3m1s\n" {
				t.Errorf("%d %q", code, body)
			}
		}
		if got := log.String(); strings.Count(got, "a loop hangs") != 1 || !strings.Contains(got, "TestHealthIsOfTheLoops") {
			t.Errorf("log:\n%s", got)
		}
		p.begin("data plane")
		if code, body := health(); code != http.StatusOK {
			t.Errorf("%d %s", code, body)
		}
	})
}
