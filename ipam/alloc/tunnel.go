package alloc

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Tunnel is a kind of tunnel that needs an address of the node's own.
type Tunnel string

// The values of Tunnel: the beginning of the handle, as Calico names it.
const (
	TunnelIPIP    Tunnel = "ipip-tunnel-addr"
	TunnelVXLAN   Tunnel = "vxlan-tunnel-addr"
	TunnelVXLANv6 Tunnel = "vxlan-v6-tunnel-addr"
)

// tunnelTypes are the values of the attribute "type" beside the address.
var tunnelTypes = map[Tunnel]string{
	TunnelIPIP:    "ipipTunnelAddress",
	TunnelVXLAN:   "vxlanTunnelAddress",
	TunnelVXLANv6: "vxlanV6TunnelAddress",
}

// Handle is the id of the node's handle for the tunnel.
func (t Tunnel) Handle(node model.NodeName) string { return string(t) + "-" + string(node) }

// Family is the family of the tunnel's address.
func (t Tunnel) Family() model.Family {
	if t == TunnelVXLANv6 {
		return model.IPv6
	}
	return model.IPv4
}

// wants reports whether a pool's traffic goes through the tunnel.
func (t Tunnel) wants(p model.Pool) bool {
	mode := p.VXLAN
	if t == TunnelIPIP {
		mode = p.IPIP
	}
	return model.FamilyOf(p.CIDR.Addr()) == t.Family() && mode != "" && mode != model.EncapNever
}

// Request asks for the node's address of the tunnel, out of the pools that use
// it. ok is false when no such pool may serve the node: then it needs none.
func (t Tunnel) Request(pools []model.Pool, node model.Node) (r Request, ok bool) {
	var names []string
	for _, p := range pools {
		if t.wants(p) && usable(p) && allows(p, model.UseTunnel) && p.NamespaceSelector == nil &&
			!p.Manual && selectsNode(p, node.Labels) {
			names = append(names, p.Name)
		}
	}
	slices.SortFunc(names, strings.Compare)
	r = Request{Handle: t.Handle(node.Name), Attrs: map[string]string{"type": tunnelTypes[t]}, Use: model.UseTunnel}
	if t.Family() == model.IPv6 {
		r.V6, r.PoolsV6 = 1, names
	} else {
		r.V4, r.PoolsV4 = 1, names
	}
	return r, len(names) > 0
}

// Live is the node's address of the tunnel, for SetLive.
func (t Tunnel) Live(node model.NodeName, addr netip.Addr) Live {
	return Live{Addr: addr, Handle: t.Handle(node), Attrs: map[string]string{"type": tunnelTypes[t]}}
}

// Fits reports whether an address the node has for the tunnel still is one it
// would be given. One that does not fit is released and asked for anew.
func (t Tunnel) Fits(addr netip.Addr, pools []model.Pool, node model.Node) bool {
	r, ok := t.Request(pools, node)
	pool, inPool := poolOf(pools, addr)
	return ok && inPool && slices.Contains(slices.Concat(r.PoolsV4, r.PoolsV6), pool.Name)
}
