package cniserver

import (
	"context"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/muslin-net/muslin/pkg/cnirpc"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// parallel is how many attachments GC and the spool take down at once: enough
// for the rooms to batch, few enough to leave room for calls.
const parallel = 16

// gc takes down every attachment of the network that the runtime does not name.
func (s *Server) gc(ctx context.Context, r *cnirpc.Request) ([]byte, error) {
	c, err := parseConf(r.GetConfig())
	if err != nil {
		return nil, err
	}
	stale, err := s.stale(ctx, c)
	if err != nil {
		return nil, err
	}
	err = task.Each(parallel, stale, func(a attachment) error {
		// Whoever holds the lock is an ADD or DEL that the runtime began
		// after it wrote its list, or one that did not hear of its end.
		release, ok := s.locks.try(a.keys()...)
		if !ok {
			return nil
		}
		defer release()
		back := s.everything(a)
		if a.ifname == "" { // an address without a wire
			back = undo{s.undoAddress(a)}
		}
		if err := back.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", a, err)
		}
		s.o.Logger.Info("stale attachment removed", "pod", a.namespace+"/"+a.pod, "container", a.containerID, "interface", a.ifname)
		return nil
	})
	return nil, err
}

// stale lists the attachments of a network that are not valid: wires by sandbox
// and interface, and addresses without a wire by the sandbox in their handle. A
// iface whose sandbox holds addresses of another network is that network's, and so
// is one that another network gave addresses without IPAM.
func (s *Server) stale(ctx context.Context, c conf) ([]attachment, error) {
	valid := map[types.GCAttachment]bool{}
	sandboxes := map[string]bool{}
	for _, v := range c.valid {
		valid[v] = true
		sandboxes[v.ContainerID] = true
	}
	handles, err := s.o.Addresses.Handles(ctx)
	if err != nil {
		return nil, s.stepError("list handles", types.ErrTryAgainLater, err)
	}
	interfaces, err := s.o.PodInterfaces.List(ctx)
	if err != nil {
		return nil, s.stepError("list wires", types.ErrTryAgainLater, err)
	}
	ours, others := map[string]bool{}, map[string]bool{}
	for _, h := range handles {
		if id, ok := strings.CutPrefix(h, c.network+"."); ok {
			ours[id] = true
		} else if i := strings.LastIndex(h, "."); i >= 0 {
			others[h[i+1:]] = true
		}
	}
	var out []attachment
	for _, ep := range append(interfaces, s.o.Endpoints.List()...) {
		key := types.GCAttachment{ContainerID: ep.ContainerID, IfName: ep.Interface}
		foreign := ep.WithoutIPAM != "" && ep.WithoutIPAM != c.network
		if valid[key] || foreign || (others[ep.ContainerID] && !ours[ep.ContainerID]) {
			continue
		}
		valid[key] = true // once
		delete(ours, ep.ContainerID)
		out = append(out, of(c.network, ep))
	}
	for id := range ours {
		if !sandboxes[id] {
			out = append(out, of(c.network, model.Endpoint{ContainerID: id}))
		}
	}
	return out, nil
}
