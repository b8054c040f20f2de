package felix

import (
	"cmp"
	"net/netip"
	"slices"
)

// podLinks are the links of this node's pods that the kernel has, up or not.
func (c *builder) podLinks() []PodLink {
	var out []PodLink
	for _, e := range c.Endpoints {
		l, ok := c.names[e.HostInterface]
		if !ok {
			continue
		}
		p := PodLink{Device: l.Name, Link: l.Index, Addresses: e.Addresses, MAC: e.MAC, MTU: e.MTU}
		p.Peering = c.peering(e.Addresses)
		p.AnySource = c.config.SpoofingAllowed && len(e.SourcePrefixes) > 0 || c.speaks(e.Addresses)
		if slices.ContainsFunc(e.Addresses, netip.Addr.Is6) {
			p.Gateway = PodGateway6
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b PodLink) int { return cmp.Compare(a.Device, b.Device) })
	return out
}
