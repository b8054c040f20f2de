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
	own.Timeout = 0
	if len(changes) > 0 {
		own.Wrap(overlay(changes))
	}
	c, err := kube.New(own, kube.Options{Blocks: kube.AllBlocks, Component: "muslinctl", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return World{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	select {
	case <-c.Ready():
	case err := <-done:
		if err == nil {
			err = fmt.Errorf("read the cluster: still waiting for %v", c.Waiting())
		}
		return World{}, err
	}
	w := World{Snapshot: c.Snapshot(), Aged: c.AgedPools(), Problems: c.Problems()}
	w.Problems = append(w.Problems, validate.BGP(w.Snapshot)...)
	w.workloads, err = readWorkloads(ctx, cfg, w.Snapshot)
	cancel()
	return w, errors.Join(err, <-done)
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
