package app

import (
	"context"
	"time"

	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/model"
)

// sweep gives back what an earlier process assigned and never wired: it was
// killed between the two, or the node lost power. It runs before the CNI socket
// opens, so that nothing is being assigned meanwhile.
func (a *agent) sweep(ctx context.Context, ready func()) error {
	for _, handle := range alloc.Orphans(a.alloc.Allocations(), inUse(a.endpoints.List(), a.cluster.Pods())) {
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

// inUse are the addresses that the kernel or the API server know to be in use: a
// pod interface has them, or a pod that still runs claims them.
func inUse(wired []model.Endpoint, pods []kube.Pod) map[string]bool {
	used := map[string]bool{}
	for _, w := range wired {
		for _, addr := range w.Addresses {
			used[addr.String()] = true
		}
	}
	for _, p := range pods {
		for _, ip := range p.IPs {
			used[ip] = used[ip] || !p.Finished
		}
	}
	return used
}
