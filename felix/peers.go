package felix

import (
	"cmp"
	"net/netip"
	"slices"
)

// PeerRoute is the way to a BGP peer whose address is on no link, as a loopback of
// a router: by a gateway that is (Calico BGPPeer reachableBy, which is a static
// route there too).
type PeerRoute struct{ Peer, Gateway netip.Addr }

// peerRoutes finds the links that lead to peers. A learned route must not: its
// session would have to be up first.
func (c *builder) peerRoutes() map[netip.Addr][]NextHop {
	if len(c.PeerRoutes) == 0 {
		return nil
	}
	r := newResolver(c, nil)
	out := make(map[netip.Addr][]NextHop, len(c.PeerRoutes))
	for _, w := range c.PeerRoutes {
		peer, gateway := w.Peer.Unmap(), w.Gateway.Unmap()
		if !peer.IsValid() || c.own[peer] || peer == gateway {
			continue
		}
		hops := r.resolve(gateway, depth)
		if len(hops) == 0 || peer.Is6() && slices.ContainsFunc(hops, func(h NextHop) bool { return h.Gateway.Is4() }) {
			c.problem(routeRef(hostPrefix(peer)), "nextHop", "NextHopUnreachable",
				"no way to "+gateway.String()+", by which the BGP peer is reached; its session cannot come up (BGPPeer reachableBy)")
			continue
		}
		out[peer] = hops
	}
	return out
}

// advertised are the links on which unnumbered routers have to hear of the node.
// One without carrier comes when it has it, and is told at once then.
func (c *builder) advertised() []AdvertisedLink {
	var out []AdvertisedLink
	for _, name := range c.Unnumbered {
		if l, ok := c.names[name]; ok && l.Up {
			out = append(out, AdvertisedLink{Device: name, Link: l.Index, MAC: l.MAC})
		}
	}
	slices.SortFunc(out, func(a, b AdvertisedLink) int { return cmp.Compare(a.Device, b.Device) })
	return slices.Compact(out)
}

// peerRoutes are the routes to those peers.
func peerRoutes(groups map[netip.Addr][]NextHop) []Route {
	out := make([]Route, 0, len(groups))
	for peer, hops := range groups {
		out = append(out, Route{Prefix: hostPrefix(peer), Metric: DefaultRouteMetric, NextHopGroup: &NextHopGroup{NextHops: hops}})
	}
	return out // sorted by whoever joins them with others
}
