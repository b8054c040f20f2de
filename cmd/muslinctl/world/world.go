// Package world reads the cluster as the agents see it: one model.Snapshot, by
// the agents' own translation, with every block; on request as it would be after
// changes that nobody has made yet.
//
// It writes nothing. Wire footprint: one list of each kind that an agent watches.
package world

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
	"github.com/muslin-net/muslin/cmd/muslinctl/kind"
	"github.com/muslin-net/muslin/felix"
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

// Read lists what there is, and lays the changes over it as if they had been
// applied.
func Read(ctx context.Context, cfg *rest.Config, changes []api.Object) (World, error) {
	c, err := listed(ctx, cfg, changes, kube.Options{Blocks: kube.AllBlocks})
	if err != nil {
		return World{}, err
	}
	w := World{Snapshot: c.Snapshot(), Aged: c.AgedPools(), Problems: c.Problems()}
	var nodes validate.Nodes
	nodes.See(w.Nodes)
	w.Problems = append(w.Problems, validate.BGP(w.Snapshot, &nodes)...)
	w.Problems = append(w.Problems, validate.Placed(w.Snapshot, nil, &nodes)...)
	w.workloads, err = readWorkloads(ctx, cfg, w.Snapshot)
	return w, err
}

// Policy is what the agents decide network policy from.
type Policy struct {
	View  model.PolicyView
	Nodes []model.Node
	CIDRs []model.ServiceCIDR
}

// ReadPolicy lists the network policies and, if there are any, what they speak of; all
// that any could speak of on request.
func ReadPolicy(ctx context.Context, cfg *rest.Config, all bool) (Policy, error) {
	c, err := listed(ctx, cfg, nil, kube.Options{Policy: true, PolicyPeers: true, PolicyAll: all})
	if err != nil {
		return Policy{}, err
	}
	s := c.Snapshot()
	view := c.PolicyView()
	view.Felix = s.Felix
	return Policy{View: view, Nodes: s.Nodes, CIDRs: s.ServiceCIDRs}, nil
}

// listed is a Cluster that knows what the server has, after the changes. What it
// asks for may depend on what it has got.
func listed(ctx context.Context, cfg *rest.Config, changes []api.Object, o kube.Options) (*kube.Cluster, error) {
	client, err := api.NewClient(cfg, "")
	if err != nil {
		return nil, err
	}
	objects := kube.Objects{}
	for {
		c, err := kube.From(objects, o)
		if err != nil {
			return nil, fmt.Errorf("read the cluster: %w", err)
		}
		missing := c.Missing()
		if len(missing) == 0 {
			return c, nil
		}
		for _, l := range missing {
			list, err := read(ctx, client, l)
			if err != nil {
				return nil, err
			}
			objects[l.Path] = lay(list, of(l.Path, changes))
		}
	}
}

// ReadPools lists the pools and what is reserved of them, and nothing else.
func ReadPools(ctx context.Context, client *api.Client) ([]model.Pool, []netip.Prefix, error) {
	objects := kube.Objects{}
	for _, plural := range []string{"ippools", "ipreservations"} {
		path := kind.MustFind(plural).Path()
		list, err := read(ctx, client, kube.List{Path: path})
		if err != nil {
			return nil, nil, err
		}
		objects[path] = list
	}
	s, _, err := kube.Snapshot(objects, kube.Options{})
	return s.Pools, s.Reserved, err
}

// read lists. A server that does not have a kind has no objects of it; the agents
// do without ranges of cluster IPs and passwords that they may not read, too.
func read(ctx context.Context, client *api.Client, l kube.List) ([]map[string]any, error) {
	var out []map[string]any
	var err error
	if l.Secret {
		var o api.Object
		if err = client.GetPath(ctx, l.Path, nil, &o); err == nil {
			out = append(out, o)
		}
	} else {
		_, err = client.EachPage(ctx, l.Path, api.Select{Fields: l.Fields, Labels: l.Labels}, func(page []api.Object) {
			out = append(out, page...)
		})
	}
	switch {
	case apierrors.IsNotFound(err) && l.Older() != "":
		l.Path = l.Older()
		return read(ctx, client, l)
	case apierrors.IsNotFound(err) && strings.HasSuffix(l.Path, "/ippools"):
		return nil, errors.New("the server has no IPPools: install Muslin's CRDs")
	case apierrors.IsNotFound(err), apierrors.IsForbidden(err) && (l.Secret || strings.HasSuffix(l.Path, "/servicecidrs")):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read the cluster: %s: %w", l.Path, err)
	}
	return out, nil
}

// For is the snapshot as the agent of a node has it: with its own blocks, those of
// others if it computes routes from them, and its pods.
func (w World) For(node model.NodeName) model.Snapshot {
	s := w.Snapshot
	s.Blocks, s.Workloads = nil, w.workloads[node]
	if felix.ComputesRoutes(s, node) {
		s.Blocks, s.LentKnown = w.Blocks, true
		return s
	}
	for _, b := range w.Blocks {
		if b.Node == node {
			s.Blocks = append(s.Blocks, b)
		}
	}
	return s
}
