package felix

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// peering are the node's addresses of the sessions with a pod, sorted.
func (c *builder) peering(pod []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, s := range c.Speakers {
		if slices.Contains(pod, s.Pod) {
			out = append(out, s.Node)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// speaks says whether a pod may send to the node's BGP port: the node speaks with
// it, or a BGPPeer has its address.
func (c *builder) speaks(pod []netip.Addr) bool {
	return len(c.peering(pod)) > 0 || slices.ContainsFunc(c.Snapshot.Peers, func(p model.BGPPeer) bool {
		return slices.Contains(pod, p.PeerIP.WithZone("").Unmap())
	})
}

// bgpPort is where the node listens for BGP (Calico BGPConfiguration listenPort,
// of the node before that of all).
func (c *builder) bgpPort() int {
	port := 0
	for _, name := range []string{"default", "node." + string(c.Self)} {
		for _, b := range c.Snapshot.BGP {
			if b.Name == name {
				port = cmp.Or(b.ListenPort, port)
			}
		}
	}
	return cmp.Or(port, defaultBGPPort)
}

const defaultBGPPort = 179

// withSpeakers adds the ways to pods that BGP is spoken with: what they announce
// has them as next hop. The gateway is on the link, whatever order the routes are
// written in.
func (c *builder) withSpeakers(groups map[netip.Addr][]NextHop) map[netip.Addr][]NextHop {
	if len(c.Speakers) == 0 {
		return groups
	}
	out := make(map[netip.Addr][]NextHop, len(groups)+len(c.Speakers))
	for peer, hops := range groups {
		out[peer] = hops
	}
	for _, e := range c.Endpoints {
		l, ok := c.names[e.HostInterface]
		if !ok || !l.AdminUp {
			continue
		}
		for _, s := range c.Speakers {
			if slices.Contains(e.Addresses, s.Pod) {
				out[s.Pod] = []NextHop{{Gateway: s.Pod, Link: l.Index, Device: l.Name, OnLink: true}}
			}
		}
	}
	return out
}

// announced are the prefixes behind the pods of the links: a packet may come from
// where packets are sent to (RFC 3704, strict reverse path forwarding).
func (c *builder) announced(routes []Route) map[string][]netip.Prefix {
	if len(c.Speakers) == 0 {
		return nil
	}
	speaking := map[string]bool{}
	for _, e := range c.Endpoints {
		if len(c.peering(e.Addresses)) > 0 {
			speaking[e.HostInterface] = true
		}
	}
	out := map[string][]netip.Prefix{}
	for _, r := range routes {
		for _, h := range r.NextHops {
			if h.Gateway.IsValid() && speaking[h.Device] {
				out[h.Device] = append(out[h.Device], r.Prefix)
			}
		}
	}
	return out
}
