// Package world reads the cluster as the agents see it: one model.Snapshot, by
// the agents' own translation, with every block; on request as it would be after
// changes that nobody has made yet.
//
// It writes nothing. Wire footprint: one list and one watch of each kind that an
// agent watches, for as long as it takes to list them.
package world

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/pkg/ctl/api"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
)

// World is what the agents know together.
type World struct {
	model.Snapshot
	Aged     []validate.Pool // the pools with their age
	Problems []model.Problem // of the objects, each and between one another

	workloads map[model.NodeName][]model.Workload // as long as BGP asks for them
}

// Read lists what there is. With changes, the lists are answered as if the
// objects had been applied.
func Read(ctx context.Context, cfg *rest.Config, changes []api.Object) (World, error) {
	own := rest.CopyConfig(cfg)
	if len(changes) > 0 {
		own.Wrap(overlay(changes))
	}
	c, stop, err := listed(ctx, own, kube.Options{Blocks: kube.AllBlocks})
	if err != nil {
		return World{}, err
	}
	w := World{Snapshot: c.Snapshot(), Aged: c.AgedPools(), Problems: c.Problems()}
	w.Problems = append(w.Problems, validate.BGP(w.Snapshot)...)
	w.workloads, err = readWorkloads(ctx, cfg, w.Snapshot)
	return w, errors.Join(err, stop())
}

// Policy is what the agents decide network policy from.
type Policy struct {
	View  model.PolicyView
	Nodes []model.Node
	CIDRs []model.ServiceCIDR
}

// ReadPolicy lists the network policies and, if there are any, what they speak of.
func ReadPolicy(ctx context.Context, cfg *rest.Config) (Policy, error) {
	c, stop, err := listed(ctx, rest.CopyConfig(cfg), kube.Options{Policy: true, PolicyPeers: true})
	if err != nil {
		return Policy{}, err
	}
	s := c.Snapshot()
	return Policy{View: c.PolicyView(), Nodes: s.Nodes, CIDRs: s.ServiceCIDRs}, stop()
}

// listed is a Cluster that has listed what it is asked for, and what ends it.
func listed(ctx context.Context, cfg *rest.Config, o kube.Options) (*kube.Cluster, func() error, error) {
	cfg.Timeout = 0
	o.Component, o.Logger = "muslinctl", slog.New(slog.DiscardHandler)
	c, err := kube.New(cfg, o)
	if err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop := func() error {
		cancel()
		return <-done
	}
	for ready := c.Ready(); ready != nil || o.Policy && len(c.PolicyWaiting()) > 0; {
		select {
		case <-ready:
			ready = nil
		case <-c.PolicyChanged():
		case <-ctx.Done():
			waiting := slices.Concat(c.Waiting(), c.PolicyWaiting())
			return nil, nil, errors.Join(stop(), fmt.Errorf("read the cluster: still waiting for %v", waiting))
		}
	}
	return c, stop, nil
}

// For is the snapshot as the agent of a node has it: with its own blocks and pods.
func (w World) For(node model.NodeName) model.Snapshot {
	s := w.Snapshot
	s.Blocks, s.Workloads = nil, w.workloads[node]
	for _, b := range w.Blocks {
		if b.Node == node {
			s.Blocks = append(s.Blocks, b)
		}
	}
	return s
}
