package felix

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// sourceCheck lets each pod send from its addresses, from what it announces by BGP
// and, when it asks for them and FelixConfiguration workloadSourceSpoofing is Any,
// from its source prefixes.
func (c *builder) sourceCheck(routes []Route) SourceCheck {
	// Before the pods are known the rules would drop what every one of them
	// sends.
	if !c.EndpointsSynced {
		return SourceCheck{}
	}
	s := SourceCheck{
		Prefix: c.prefixes[0], OtherPrefixes: c.prefixes[1:],
		ToHost: cmp.Or(c.config.ToHost, model.ActionAccept), BGPPort: c.bgpPort(),
	}
	g := c.guard()
	s.NoIPIP = g.IPIP && !c.config.IPIPFromPods
	s.NoVXLAN = len(g.VXLANPorts) > 0 && !c.config.VXLANFromPods
	announced := c.announced(routes)
	for _, e := range c.Endpoints {
		if !c.isPods(e.HostInterface) {
			continue
		}
		p := PodSource{Interface: e.HostInterface, Local: linkLocalOf(e.MAC)}
		for _, a := range e.Addresses {
			p.Sources = append(p.Sources, hostPrefix(a))
		}
		if c.config.SpoofingAllowed {
			p.Sources = append(p.Sources, e.SourcePrefixes...)
		}
		p.Sources = cover(append(p.Sources, announced[e.HostInterface]...))
		p.Speaks = c.speaks(e.Addresses)
		s.Pods = append(s.Pods, p)
	}
	slices.SortFunc(s.Pods, func(a, b PodSource) int { return strings.Compare(a.Interface, b.Interface) })
	return s
}

// linkLocalOf is the address that the kernel makes of an Ethernet address.
func linkLocalOf(mac string) netip.Addr {
	m, err := net.ParseMAC(mac)
	if err != nil || len(m) != 6 {
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// services guards the service ranges that BGP announces (FelixConfiguration
// serviceLoopPrevention: Drop, Reject, Disabled).
func (c *builder) services() ServiceGuard {
	mode := c.config.ServiceLoops
	if mode == model.ActionOff {
		return ServiceGuard{}
	}
	var all []netip.Prefix
	for _, b := range c.Snapshot.BGP {
		if b.Name == "default" {
			all = slices.Concat(b.ServiceClusterIPs, b.ServiceExternalIPs, b.ServiceLoadBalancers)
		}
	}
	if len(all) == 0 {
		return ServiceGuard{}
	}
	return ServiceGuard{Ranges: cover(all), Reject: mode == model.ActionReject}
}

// guard lets tunnelled packets in from nodes only, as long as a device takes
// them: one that has to go stays for a while.
func (c *builder) guard() TunnelGuard {
	ipip, v4, v6 := c.encapsulations()
	g := TunnelGuard{IPIP: ipip}
	if v4 || v6 {
		g.VXLANPorts = append(g.VXLANPorts, c.vxlanPort())
	}
	for _, l := range c.Host.Links {
		if l.VXLANPort > 0 && isTunnel(l.Name) {
			g.VXLANPorts = append(g.VXLANPorts, l.VXLANPort)
		}
	}
	slices.Sort(g.VXLANPorts)
	g.VXLANPorts = slices.Compact(g.VXLANPorts)
	if !g.Any() {
		return TunnelGuard{}
	}
	for _, n := range c.Snapshot.Nodes {
		for _, p := range n.Subnets() {
			g.Nodes = append(g.Nodes, p.Addr())
		}
	}
	slices.SortFunc(g.Nodes, netip.Addr.Compare)
	g.Nodes, g.External = slices.Compact(g.Nodes), cover(c.config.ExternalNodes)
	return g
}
