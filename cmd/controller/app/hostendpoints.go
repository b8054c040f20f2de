package app

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// autoHostEndpoint ends the names of the HostEndpoints of nodes, as Calico's do.
	autoHostEndpoint = "-auto-hep"
	// endpointsAtOnce bounds the writes of one pass, which others wait for.
	endpointsAtOnce = 100
)

// hostEndpointOf gives the HostEndpoint that a node has with autoCreate: all its
// interfaces, its labels, and the addresses that BGP, the tunnels and Kubernetes know it
// by, in Calico's order. What no policy decides its profile allows.
func hostEndpointOf(n *model.Node) model.HostEndpoint {
	e := model.HostEndpoint{
		Object: model.Ref{Kind: model.KindHostEndpoint, Name: string(n.Name) + autoHostEndpoint},
		Labels: map[string]string{}, Node: n.Name, Interface: model.AnyInterface, Profiles: []string{model.ProfileAllow},
	}
	maps.Copy(e.Labels, n.Labels)
	e.Labels[kube.LabelCreatedBy] = kube.CreatedByControllers
	for _, a := range slices.Concat(n.Addresses(), n.InternalIPs, n.OtherIPs) {
		if a = a.Unmap().WithZone(""); a.IsValid() && !slices.Contains(e.Addresses, a) {
			e.Addresses = append(e.Addresses, a)
		}
	}
	return e
}

// endpointWork is what has to be done to the HostEndpoints of nodes.
type endpointWork struct {
	put     []model.HostEndpoint
	drop    []model.Ref
	foreign []model.Ref // they have a name that is wanted, and are somebody's own
}

// endpointsToDo compares what the nodes should have with what there is. It looks at
// the ones alone that are marked as the controllers' and named as theirs; on is false
// where no node should have one. It is pure.
func endpointsToDo(on bool, nodes []model.Node, have []model.HostEndpoint) (todo endpointWork) {
	want := map[string]model.HostEndpoint{}
	for i := range nodes {
		if on {
			e := hostEndpointOf(&nodes[i])
			want[e.Object.Name] = e
		}
	}
	for _, h := range have {
		w, wanted := want[h.Object.Name]
		delete(want, h.Object.Name)
		switch own := h.Labels[kube.LabelCreatedBy] == kube.CreatedByControllers; {
		case !own && wanted:
			todo.foreign = append(todo.foreign, h.Object)
		case own && wanted && !sameEndpoint(w, h):
			todo.put = append(todo.put, w)
		case own && !wanted && strings.HasSuffix(h.Object.Name, autoHostEndpoint):
			todo.drop = append(todo.drop, h.Object)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		todo.put = append(todo.put, want[name])
	}
	return todo
}

func sameEndpoint(a, b model.HostEndpoint) bool {
	return maps.Equal(a.Labels, b.Labels) && a.Node == b.Node && a.Interface == b.Interface &&
		slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Profiles, b.Profiles) && len(b.Ports) == 0
}

// keepEndpoints makes the HostEndpoints of nodes what they should be, some at a time. While
// it is not known whether there should be any, those that are there stay: policies are
// in force by them.
func (c *Controller) keepEndpoints(ctx context.Context) (again time.Duration, err error) {
	settings, known := c.Cluster.ControllerSettings()
	view := c.Cluster.PolicyView()
	if !known || !view.Synced || c.uninstalling.yes() {
		return lookAgain, nil
	}
	todo := endpointsToDo(settings.HostEndpoints, c.Cluster.Snapshot().Nodes, view.HostEndpoints)
	again = lookAgain
	if len(todo.put)+len(todo.drop) > endpointsAtOnce {
		again = settleDelay
		todo.put = todo.put[:min(len(todo.put), endpointsAtOnce)]
		todo.drop = todo.drop[:min(len(todo.drop), endpointsAtOnce-len(todo.put))]
	}
	var errs []error
	for _, e := range todo.put {
		foreign, err := c.Cluster.PutHostEndpoint(ctx, e)
		if errs = append(errs, err); foreign { // one that cannot be read, or that the cache does not have yet
			todo.foreign = append(todo.foreign, e.Object)
		} else if err == nil {
			c.Logger.Info("wrote the host endpoint of a node", "node", e.Node, "name", e.Object.Name)
		}
	}
	for _, ref := range todo.drop {
		err := c.Cluster.DeleteHostEndpoint(ctx, ref)
		if errs = append(errs, err); err == nil {
			c.Logger.Info("deleted the host endpoint of a node", "name", ref.Name)
		}
	}
	c.untouched = notOurs(todo.foreign)
	return again, errors.Join(errs...)
}

// notOurs tells at the setting of HostEndpoints that stand where it wants others.
func notOurs(foreign []model.Ref) (out []model.Problem) {
	for _, ref := range foreign {
		out = append(out, model.Problem{
			Object: model.Ref{Kind: "KubeControllersConfiguration", Name: "default"}, Field: "spec.controllers.node.hostEndpoint.autoCreate", Reason: "NameTaken",
			Message: "HostEndpoint " + ref.Name + " has no label " + kube.LabelCreatedBy + ": it is left as it is; rename it, and the node gets its own",
		})
	}
	return out
}
