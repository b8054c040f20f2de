package agent

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// tellLive tells the allocator which addresses are in use on this node: before it
// runs, and whenever an endpoint or a tunnel has got or lost one.
func (a *agent) tellLive() {
	a.telling.Lock() // who comes last tells the latest
	defer a.telling.Unlock()
	live := liveAddresses(a.endpoints.List(), a.podCIDRs.foreign())
	a.alloc.SetLive(append(live, liveTunnels(a.cfg.Node, a.in.tunnels.Value())...))
}

// liveAddresses are the addresses of pods that IPAM has to know: not those that
// pods bring, nor those that come from the node's prefixes.
func liveAddresses(pods []model.Endpoint, podCIDRs []netip.Prefix) []ipam.Live {
	var out []ipam.Live
	for _, ep := range byIPAM(pods) {
		attrs := map[string]string{}
		if ep.Pod != "" {
			attrs = map[string]string{"namespace": ep.Namespace, "pod": ep.Pod}
		}
		for _, addr := range ep.Addresses {
			if !slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				out = append(out, ipam.Live{Addr: addr, Handle: model.HandlePrefix + ep.ContainerID, Attrs: attrs})
			}
		}
	}
	return out
}

// liveTunnels are the node's tunnel addresses.
func liveTunnels(node model.NodeName, own felix.TunnelAddresses) []ipam.Live {
	var out []ipam.Live
	for _, end := range tunnelEnds {
		if addr := *end.of(&own); addr.IsValid() {
			out = append(out, end.tunnel.Live(node, addr))
		}
	}
	return out
}
