package felix

import (
	"net/netip"
)

// Holder says whose an address is that no pod may choose for itself: a node's, a
// BGP peer's, a gateway's in use or a service's; empty when nobody's. The pods'
// own are for IPAM to know.
func Holder(in Input, a netip.Addr) string { return newCase(in).holders().of(a) }

type holders struct {
	one    map[netip.Addr]string
	ranges []netip.Prefix // of services
}

func (h holders) of(a netip.Addr) string {
	if whose, ok := h.one[a]; ok {
		return whose
	}
	for _, p := range h.ranges {
		if p.Contains(a) {
			return "in the service range " + p.String()
		}
	}
	return ""
}

// holders asks everybody but pods, whoever has the least to lose first.
func (c *builder) holders() holders {
	h := holders{one: map[netip.Addr]string{}}
	hold := func(whose string, addrs ...netip.Addr) {
		for _, a := range addrs {
			if a.IsValid() {
				h.one[a.Unmap().WithZone("")] = whose
			}
		}
	}
	for _, s := range c.Snapshot.Services {
		for _, addrs := range [][]netip.Addr{s.ClusterIPs, s.ExternalIPs, s.LoadBalancerIPs} {
			hold("an address of Service "+s.Namespace+"/"+s.Name, addrs...)
		}
	}
	for _, b := range c.Snapshot.BGP {
		for _, ranges := range [][]netip.Prefix{b.ServiceClusterIPs, b.ServiceExternalIPs, b.ServiceLoadBalancers} {
			h.ranges = append(h.ranges, ranges...)
		}
		hold("the address by which BGP is spoken with pods", b.LocalWorkloadPeerIPv4, b.LocalWorkloadPeerIPv6)
	}
	for _, r := range c.Host.Routes {
		hold("a gateway of this node", r.Gateways...)
	}
	for _, p := range c.Snapshot.Peers {
		hold("the address of BGPPeer "+p.Name, p.PeerIP, p.ReachableBy)
	}
	for _, n := range c.Snapshot.Nodes {
		hold("an address of node "+string(n.Name), n.Addresses()...)
	}
	for a := range c.own {
		hold("an address of this node", a)
	}
	return h
}
