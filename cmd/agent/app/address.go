package app

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
	"github.com/muslin-net/muslin/pkg/task"
)

// addressKeeper keeps the node's addresses, as its annotations tell them, to
// what kubelet and the kernel say.
type addressKeeper struct {
	writers map[string]string // annotation and value without a mark → who wrote it
}

// keepAddress writes the annotations with the node's addresses whenever the
// Node, BGPConfiguration default or the kernel's addresses ask for it.
func (a *agent) keepAddress(ctx context.Context, ready func()) error {
	ready()
	task.Loop(ctx, func(ctx context.Context) task.Next {
		in := a.in.gather()
		next := task.Next{Changed: in.ofBGP}
		if err := a.settleAddress(ctx, in.snapshot, in.host); err != nil && ctx.Err() == nil {
			a.log.Warn("node address not recorded", "error", err)
			next.After = retryAfter
		}
		return next
	})
	return nil
}

func (a *agent) settleAddress(ctx context.Context, s model.Snapshot, host model.Host) error {
	self, ok := s.Node(a.cfg.Node)
	if !ok {
		return nil
	}
	var asking error
	d := nodeaddr.Decide(nodeaddr.Input{
		Node: self, Nodes: s.Nodes, Cluster: clusterAnnotations(s), Host: host,
		Writer: func(annotation, value string) string {
			writer, err := a.writer(ctx, annotation, value)
			if err != nil {
				asking = err
			}
			return writer
		},
	})
	if asking != nil {
		return asking // who does not know whose a value is does not touch it
	}
	a.own.address.set(append(d.Problems, nodeaddr.Missing(self, s.Pools, s.Blocks)...))
	if len(d.Annotations) == 0 {
		return nil
	}
	a.log.Info("node address recorded", "annotations", d.Annotations)
	return a.cluster.AnnotateNode(ctx, d.Annotations)
}

// writer asks once for each value.
func (a *agent) writer(ctx context.Context, annotation, value string) (string, error) {
	key := annotation + " " + value
	if who, known := a.address.writers[key]; known {
		return who, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	who, err := a.cluster.AnnotationWriter(ctx, annotation)
	if err == nil {
		a.address.writers[key] = who
	}
	return who, err
}

func clusterAnnotations(s model.Snapshot) map[string]string {
	for _, c := range s.BGP {
		if c.Name == "default" {
			return c.Annotations
		}
	}
	return nil
}
