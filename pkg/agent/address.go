package agent

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/nodeaddr"
)

// addressKeeper keeps the node's addresses, as its annotations tell them, to
// what kubelet and the kernel say.
type addressKeeper struct {
	look    hint
	writers map[string]string // annotation and value without a mark → who wrote it
}

// keepAddress writes the annotations with the node's addresses whenever the
// Node, BGPConfiguration default or the kernel's addresses ask for it.
func (a *agent) keepAddress(ctx context.Context, ready func()) error {
	ready()
	for {
		var retry <-chan time.Time
		if err := a.settleAddress(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("node address not recorded", "error", err)
			retry = time.After(retryAfter)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-a.address.look:
		case <-retry:
		}
	}
}

func (a *agent) settleAddress(ctx context.Context) error {
	s := a.snapshot()
	self, ok := findNode(s, a.cfg.Node)
	if !ok {
		return nil
	}
	var asking error
	d := nodeaddr.Decide(nodeaddr.Input{
		Node: self, Nodes: s.Nodes, Cluster: clusterAnnotations(s), Host: a.links.Host(),
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
