package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/task"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
)

// relay serves the cluster's pods to agents. Every replica does, whoever leads.
type relay struct {
	cluster *kube.Cluster
	server  policyrelay.Server
	found   *policyrelay.Directory
	name    string
	at      policyrelay.Replica
}

// relayGarbage is how much garbage there may be beside the pods of a whole cluster, in percent
// of what is alive: a relay has hundreds of megabytes that live long, and little to do.
const relayGarbage = 40

// newRelay makes the relay, nil if there is to be none.
func newRelay(cfg *rest.Config, s settings, cluster *kube.Cluster, logger *slog.Logger) (*relay, error) {
	if s.relay == "" {
		return nil, nil
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(relayGarbage)
	}
	review, err := policyrelay.Reviewer(cfg)
	if err != nil {
		return nil, err
	}
	found, err := policyrelay.NewDirectory(cfg, logger)
	if err != nil {
		return nil, err
	}
	certificate, text, err := policyrelay.NewCertificate()
	if err != nil {
		return nil, err
	}
	return &relay{
		cluster: cluster, found: found, name: s.identity,
		server: policyrelay.Server{Index: policyrelay.NewIndex(), Certificate: certificate, Review: review, Logger: logger},
		at:     policyrelay.Replica{Address: s.relay, Certificate: text, Since: time.Now().UTC()},
	}, nil
}

// run serves until ctx ends. Agents find it once it knows the cluster.
func (r *relay) run(ctx context.Context) error {
	if r == nil {
		return nil
	}
	l, err := policyrelay.Listen(ctx, r.at.Address)
	if err != nil {
		return fmt.Errorf("MUSLIN_RELAY_ADDR: %w", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return r.server.Serve(ctx, l) })
	known := make(chan struct{})
	g.Go(func() error { r.follow(ctx, known); return nil })
	g.Go(func() error {
		select {
		case <-known:
			return r.found.Publish(ctx, r.name, r.at)
		case <-ctx.Done():
			return nil
		}
	})
	return g.Wait()
}

// follow keeps the index like the cluster; known is closed once it is for the first time.
func (r *relay) follow(ctx context.Context, known chan<- struct{}) {
	task.Loop(ctx, func(context.Context) task.Next {
		view := r.cluster.PolicyView()
		r.server.Index.Update(view)
		if view.Synced && known != nil {
			close(known)
			known = nil
		}
		return task.Next{}
	}, r.cluster.PolicyChanged())
}
