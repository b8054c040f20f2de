// Command muslin-controller does what one process has to do for the cluster:
// see package controller.
//
// It takes no flags. The environment says what must be known before the API can
// be reached:
//
//	KUBECONFIG            a kubeconfig file; the pod's service account when empty
//	POD_NAME              the name in the election; the host name when empty
//	MUSLIN_LOG_LEVEL      debug, info (default), warn or error
//	MUSLIN_HTTP_ADDR      health and metrics, 127.0.0.1:9110 when empty
//	MUSLIN_METRICS_…      who gets /metrics from elsewhere: see package metricsserver
//	MUSLIN_RELAY_ADDR     where agents find the policy relay, host:port; there is none when empty
//	MUSLIN_IPV4POOL_CIDR  the pool to make in a cluster without pools; none when empty
//	MUSLIN_IPV6POOL_CIDR  the same for IPv6
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
)

var version = "dev" // set by the linker

func main() {
	if err := run(os.Getenv); err != nil {
		fmt.Fprintln(os.Stderr, "muslin-controller:", err)
		os.Exit(1)
	}
}

func run(getenv func(string) string) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := readSettings(getenv)
	if err != nil {
		return err
	}
	logger := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: s.level}))
	logger.Info("starts", "version", version, "identity", s.identity)
	return serve(ctx, s, logger)
}
