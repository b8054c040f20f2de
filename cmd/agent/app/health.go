package app

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// httpServer serves /healthz, /readyz, /metrics and /status on a loopback
// address. Nothing waits for it: a node whose port another process has still
// speaks BGP.
type httpServer struct {
	addr     string
	logger   *slog.Logger
	gates    *gates
	pulses   *pulses
	reg      *prometheus.Registry
	status   func() Status
	show     func(*http.ServeMux) // adds handlers
	listened func(error)          // announced of each try to listen
}

// Status is the agent's own view, as /status and `muslin-agent status` show it.
type Status struct {
	Node     model.NodeName     `json:"node"`
	Version  string             `json:"version"`
	Waiting  []string           `json:"waiting,omitempty"`
	Peers    []model.PeerStatus `json:"peers"`
	Blocks   []model.Block      `json:"blocks"`
	Origin   OriginStatus       `json:"origin"`
	Refused  []RefusedCount     `json:"refused,omitempty"`
	Policy   PolicySize         `json:"policy"`
	Without  []string           `json:"withoutCapabilities,omitempty"` // on purpose
	Problems []string           `json:"problems,omitempty"`
}

// PolicySize is how much network policy the kernel of the node was told.
type PolicySize struct {
	Chains    int `json:"chains"`
	Endpoints int `json:"endpoints"` // pods, whether or not a policy selects them
	Sets      int `json:"sets"`
	Members   int `json:"members"` // of all sets: addresses, ranges, ports
	// Packets that were denied since the kernel was told as a whole.
	DeniedIngress uint64 `json:"deniedIngress"`
	DeniedEgress  uint64 `json:"deniedEgress"`
}

// run serves until ctx ends, and tries again when it cannot.
func (s *httpServer) run(ctx context.Context, ready func()) error {
	ready()
	for ctx.Err() == nil {
		if err := s.serve(ctx); ctx.Err() == nil {
			s.listened(err)
			pause(ctx, retryAfter)
		}
	}
	return nil
}

func (s *httpServer) serve(ctx context.Context) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return fmt.Errorf("listen for health and metrics: %w", err)
	}
	s.listened(nil)
	srv := &http.Server{Handler: s.mux(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	return fmt.Errorf("serve health and metrics: %w", srv.Serve(l))
}

func (s *httpServer) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { wellIf(w, s.pulses.hanging()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { wellIf(w, s.gates.waiting()) })
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{}))
	private := http.NewServeMux()
	private.HandleFunc("GET /status", s.serveStatus)
	s.show(private)
	mux.Handle("/", rootOnly(private))
	return mux
}

// wellIf answers ok without a complaint, else the complaints, one a line.
func wellIf(w http.ResponseWriter, complaints []string) {
	if len(complaints) > 0 {
		http.Error(w, strings.Join(complaints, "\n"), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (s *httpServer) serveStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(s.status()); err != nil {
		s.logger.Debug("write status", "error", err)
	}
}
