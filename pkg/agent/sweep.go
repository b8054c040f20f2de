package agent

import (
	"context"
	"net/netip"
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

// adoptAddresses tells the allocator which addresses the pods have that an
// earlier process wired. One that lies in a block of this node and has no owner
// there was wired by a process that did not live to store it: it is stored now,
// so that nobody else gets it while the wire is there. The runtime's DEL gives
// it back.
func (a *agent) adoptAddresses(ctx context.Context) {
	owned := map[netip.Addr]bool{}
	for _, al := range a.alloc.Allocations() {
		owned[al.Addr] = true
	}
	blocks := a.alloc.Blocks()
	for _, ep := range byIPAM(a.endpoints.List()) {
		handle := model.HandlePrefix + ep.ContainerID
		if lost := unowned(ep.Addresses, blocks, owned); len(lost) > 0 {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			_, err := a.alloc.Assign(ctx, ipam.Request{
				Handle: handle, Addrs: ep.Addresses, Attrs: map[string]string{"namespace": ep.Namespace, "pod": ep.Pod},
			})
			cancel()
			a.log.Info("address of an adopted pod stored", "handle", handle, "addresses", lost, "error", err)
		}
		a.alloc.Adopt(handle, ep.Addresses)
	}
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

// unowned are the addresses that lie in one of the blocks and have no owner.
func unowned(addrs []netip.Addr, blocks []model.Block, owned map[netip.Addr]bool) []netip.Addr {
	var out []netip.Addr
	for _, addr := range addrs {
		if !owned[addr] && slices.ContainsFunc(blocks, func(b model.Block) bool { return b.CIDR.Contains(addr) }) {
			out = append(out, addr)
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
