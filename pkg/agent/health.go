package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// gates is what the agent has reached. It answers /readyz and decides the node's
// NetworkUnavailable condition.
type gates struct {
	reached task.Cell[map[string]string] // gate → empty when passed, else what it waits for
}

// The gates, in the order in which they pass.
const (
	gateCluster = "cluster-data"  // every source of cluster data has listed once
	gateKernel  = "data-plane"    // the desired state is in the kernel
	gateBGP     = "bgp-sessions"  // the first sessions are established, where there are any
	gateSocket  = "cni-socket"    // CNI requests are answered
	gateConfig  = "cni-installed" // the CNI configuration is on the node
)

func newGates(names ...string) *gates {
	reached := map[string]string{}
	for _, name := range names {
		reached[name] = "starting"
	}
	g := &gates{}
	g.reached.Set(reached)
	return g
}

// pass marks a gate as passed.
func (g *gates) pass(gate string) { g.wait(gate, "") }

// wait says what a gate waits for.
func (g *gates) wait(gate, what string) {
	g.reached.Update(func() map[string]string {
		reached := maps.Clone(g.reached.Value())
		reached[gate] = what
		return reached
	})
}

// waitFirst says what a gate waits for, unless it has passed already.
func (g *gates) waitFirst(gate, what string) {
	if g.reached.Value()[gate] != "" {
		g.wait(gate, what)
	}
}

// waiting returns what is not reached yet, sorted; empty means ready. With
// names given, only those count.
func (g *gates) waiting(names ...string) []string {
	var out []string
	for name, what := range g.reached.Value() {
		if what != "" && (len(names) == 0 || slices.Contains(names, name)) {
			out = append(out, name+": "+what)
		}
	}
	slices.Sort(out)
	return out
}

// httpServer serves /healthz, /readyz, /metrics and /status on a loopback
// address. Nothing waits for it: a node whose port another process has still
// speaks BGP.
type httpServer struct {
	addr   string
	logger *slog.Logger
	gates  *gates
	pulses *pulses
	reg    *prometheus.Registry
	status func() Status
	show   func(*http.ServeMux) // adds handlers
	heard  func(error)          // told of each try to listen
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
			s.heard(err)
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
	s.heard(nil)
	srv := &http.Server{Handler: s.mux(), ReadHeaderTimeout: 5 * time.Second, IdleTimeout: time.Minute}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	return fmt.Errorf("serve health and metrics: %w", srv.Serve(l))
}

func (s *httpServer) mux() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { wellIf(w, s.pulses.hanging()) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { wellIf(w, s.gates.waiting()) })
	mux.HandleFunc("GET /status", rootOnly(s.serveStatus))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.reg, promhttp.HandlerOpts{}))
	s.show(mux)
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
