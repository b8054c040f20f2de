package metricsserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"k8s.io/client-go/rest"
)

// Path is the one path that is served.
const Path = "/metrics"

const (
	retryAfter = time.Second
	atOnce     = 4 // scrapes; more are told to come again
)

// Server serves a Gatherer.
type Server struct {
	addr     string
	handler  http.Handler
	cert     func() (*tls.Certificate, error) // nil: no TLS
	log      *slog.Logger
	received func(error)
}

// New makes a server; without an address one that does nothing. api is of the API
// server that is asked about tokens. heard is told of each try to serve, nil of one
// that succeeded.
func New(s Settings, metrics prometheus.Gatherer, api *rest.Config, logger *slog.Logger, received func(error)) (*Server, error) {
	scrape := promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: atOnce})
	if s.Authorization {
		g, err := newGate(api, logger)
		if err != nil {
			return nil, err
		}
		scrape = g.guard(scrape)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+Path, scrape)
	out := &Server{addr: s.Addr, handler: mux, log: logger, received: received}
	switch {
	case s.CertFile != "":
		out.cert = (&files{cert: s.CertFile, key: s.KeyFile, broken: complaint{log: logger, what: "certificate"}}).get
	case s.TLS:
		made, err := selfSigned()
		if err != nil {
			return nil, err
		}
		out.cert = func() (*tls.Certificate, error) { return made, nil }
	}
	return out, nil
}

// Run serves until ctx ends, and tries again every second when it cannot.
func (s *Server) Run(ctx context.Context) error {
	if s.addr == "" {
		<-ctx.Done()
		return nil
	}
	for ctx.Err() == nil {
		l, err := s.listen(ctx)
		if err == nil {
			s.received(nil)
			err = s.serve(ctx, l)
		}
		if ctx.Err() == nil {
			s.received(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryAfter):
		}
	}
	return nil
}

func (s *Server) listen(ctx context.Context) (net.Listener, error) {
	if s.cert != nil {
		if _, err := s.cert(); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", s.addr)
	if err != nil {
		return nil, fmt.Errorf("listen for scrapes: %w", err)
	}
	if s.cert == nil {
		return l, nil
	}
	return tls.NewListener(l, &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return s.cert() },
	}), nil
}

func (s *Server) serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug), // of a connection that fails the other end knows more
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 64 << 10,
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	return fmt.Errorf("serve metrics: %w", server.Serve(l))
}

// complaint logs an error when it comes up and when it is over, not each time.
type complaint struct {
	log  *slog.Logger
	what string

	mu     sync.Mutex
	stated bool
}

// of takes what became of a try.
func (c *complaint) of(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if stated := err != nil; stated != c.stated {
		c.stated = stated
		if stated {
			c.log.Warn("metrics are not served as they should be", "what", c.what, "error", err)
		} else {
			c.log.Info("metrics are served again", "what", c.what)
		}
	}
}
