package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"time"

	"github.com/muslin-net/muslin/cmd/controller/app"
	"github.com/muslin-net/muslin/ipam/kubestore"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/metricsserver"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// serve wires the controller and runs it until ctx ends or a part fails.
func serve(ctx context.Context, s settings, logger *slog.Logger) error {
	cfg, err := kube.LoadConfig(s.kubeconfig)
	if err != nil {
		return err
	}
	cluster, err := kube.New(cfg, kube.Options{Component: "muslin-controller", Blocks: kube.AllBlocks, Policy: true, PolicyRelay: s.relay != "", Balanced: true, Logger: logger})
	if err != nil {
		return err
	}
	store, err := kubestore.New(cfg, kubestore.Options{Logger: logger})
	if err != nil {
		return err
	}
	objects, err := app.NewObjects(cfg, logger)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())
	c := &app.Controller{Cluster: cluster, Store: store, Objects: objects, Defaults: s.defaults, Logger: logger}
	if err := c.Register(registry); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	election := app.Election{Config: cfg, Namespace: kube.SystemNamespace, Identity: s.identity, Logger: logger}
	scrapes, err := metricsserver.New(s.metrics, registry, cfg, logger, func(err error) {
		if err != nil {
			logger.Error("metrics are not served", "error", err)
		}
	})
	if err != nil {
		return err
	}
	relay, err := newRelay(cfg, s, cluster, logger)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return cluster.Run(ctx) })
	g.Go(func() error { return election.Elect(ctx, c.Run) })
	g.Go(func() error { return serveHTTP(ctx, s.http, handler(cluster, registry)) })
	g.Go(func() error { return scrapes.Run(ctx) })
	g.Go(func() error { return relay.run(ctx) })
	return g.Wait()
}

// buildInfo is the agents' metric of this name, without the GoBGP that is not here.
func buildInfo() prometheus.Collector {
	info := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "muslin_build_info", Help: "1; of which version the controller and the Go in it are.",
	}, []string{"version", "goversion"})
	info.WithLabelValues(version, runtime.Version()).Set(1)
	return info
}

// handler answers /healthz, /readyz and /metrics. A replica that waits for the
// lease is ready: it is needed for nothing else.
func handler(cluster *kube.Cluster, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if !cluster.Synced() {
			http.Error(w, "waiting for "+strings.Join(cluster.Waiting(), ", "), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

func serveHTTP(ctx context.Context, addr string, h http.Handler) error {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("listen for health checks: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve health checks: %w", err)
	}
	return nil
}
