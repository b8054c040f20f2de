package felix

import (
	"strings"
)

func (c *builder) rules(routes []Route) Ruleset {
	return Ruleset{Complete: c.Snapshot.Synced && c.EndpointsSynced, NAT: c.nat(), SourceCheck: c.sourceCheck(routes), Tunnels: c.guard(), Services: c.services(),
		Floating: Floating{Enabled: c.config.FloatingIPs, IPs: c.floats}}
}

// nat is natOutgoing: from pools that ask for it to anywhere but pools, and but
// nodes when FelixConfiguration natOutgoingExclusions says so. A disabled pool
// may still have pods and keeps its NAT, as in Calico.
func (c *builder) nat() NAT {
	n := NAT{
		Address:   c.config.NATOutgoingAddress,
		Interface: strings.Replace(c.config.NATInterface, "+", "*", 1),
		PortMin:   c.config.NATPortMin, PortMax: c.config.NATPortMax,
	}
	for _, p := range c.Snapshot.Pools {
		if p.LoadBalancerOnly() { // no pod is in it, and what is outside is reached as such
			continue
		}
		n.Exclude = append(n.Exclude, p.CIDR)
		if p.NATOutgoing {
			n.Sources = append(n.Sources, p.CIDR)
		}
	}
	if len(n.Sources) == 0 {
		return NAT{}
	}
	if c.config.NATExcludeHosts {
		for _, node := range c.Snapshot.Nodes {
			for _, p := range node.Subnets() {
				n.Exclude = append(n.Exclude, hostPrefix(p.Addr()))
			}
		}
		n.Exclude = append(n.Exclude, c.config.ExternalNodes...)
	}
	n.Sources, n.Exclude = cover(n.Sources), cover(n.Exclude)
	return n
}
