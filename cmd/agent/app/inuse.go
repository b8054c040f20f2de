package app

import (
	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

// tellLive tells the allocator which addresses are in use on this node: before it
// runs, and whenever an endpoint or a tunnel has got or lost one.
func (a *agent) tellLive() {
	a.telling.Lock() // who comes last tells the latest
	defer a.telling.Unlock()
	live := alloc.LivePods(a.endpoints.List(), a.podCIDRs.foreign())
	a.alloc.SetLive(append(live, liveTunnels(a.cfg.Node, a.in.tunnels.Value())...))
}

// liveTunnels are the node's tunnel addresses.
func liveTunnels(node model.NodeName, own felix.TunnelAddresses) []alloc.Live {
	var out []alloc.Live
	for _, end := range tunnelEnds {
		if addr := *end.field(&own); addr.IsValid() {
			out = append(out, end.tunnel.Live(node, addr))
		}
	}
	return out
}
