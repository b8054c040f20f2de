package agent

import (
	"context"
	"slices"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// sweep gives back what an earlier process assigned and never wired: it was
// killed between the two, or the node lost power. It runs before the CNI socket
// opens, so that nothing is being assigned meanwhile.
func (a *agent) sweep(ctx context.Context, ready func()) error {
	for _, handle := range orphans(a.alloc.Allocations(), a.endpoints.List(), a.cluster.Pods()) {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := a.alloc.Release(ctx, handle)
		cancel()
		// What is left is found again by the cluster's garbage collection.
		a.log.Info("address without a pod released", "handle", handle, "error", err)
	}
	ready()
	<-ctx.Done()
	return nil
}

// byIPAM are the pods whose addresses IPAM gave. The others' are kept and counted
// nowhere: to adopt one would announce it as borrowed.
func byIPAM(pods []model.Endpoint) (out []model.Endpoint) {
	for _, ep := range pods {
		if ep.WithoutIPAM == "" {
			out = append(out, ep)
		}
	}
	return out
}

// orphans are the handles of pod addresses that neither the kernel nor the API
// server know to be in use: no wire has the address, and no pod that is still
// running claims it. Addresses of other kinds (tunnels) are not looked at.
func orphans(allocations []ipam.Allocation, wires []model.Endpoint, pods []kube.Pod) []string {
	used := map[string]bool{}
	for _, w := range wires {
		for _, addr := range w.Addresses {
			used[addr.String()] = true
		}
	}
	for _, p := range pods {
		if !p.Finished {
			for _, ip := range p.IPs {
				used[ip] = true
			}
		}
	}
	var inUse, candidates []string
	for _, al := range allocations {
		switch {
		case al.Handle == "" || al.Owner["pod"] == "" || used[al.Addr.String()]:
			inUse = append(inUse, al.Handle)
		case !slices.Contains(candidates, al.Handle):
			candidates = append(candidates, al.Handle)
		}
	}
	// A handle goes as a whole or not at all.
	return slices.DeleteFunc(candidates, func(h string) bool { return slices.Contains(inUse, h) })
}
