package felix

import (
	"cmp"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// Desired decides what the kernel has to say. Equal inputs give equal states
// and problems.
//
// State.Prune is true once every source has been heard; before that the State
// may lack routes that are still to come, and nothing may be deleted on its
// word.
func Desired(in Input) (State, []model.Problem) {
	c := newCase(in)
	c.findPrefixes()
	c.setAside()
	c.floats, c.namedMTU = c.floating(), c.findNamedMTU()
	routes := c.prioritised(c.routes())
	s := State{
		Prune:    in.Snapshot.Synced && in.LearnedSynced && in.HostSynced && in.EndpointsSynced && (in.Snapshot.LentKnown || !c.computes),
		Refresh:  time.Duration(c.config.RouteRefreshSeconds) * time.Second,
		MTU:      c.mtu(),
		Pods:     c.podLinks(),
		Rules:    c.rules(routes),
		Sysctls:  c.sysctls(),
		Tunnels:  c.tunnels(),
		Routes:   routes,
		External: c.external,
		ByIPAM:   c.byIPAM,

		Advertised: c.advertised(),
	}
	slices.SortFunc(c.problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field),
			cmp.Compare(a.Message, b.Message))
	})
	return s, slices.Compact(c.problems)
}

// builder is an Input with the questions that every part of the decision asks
// answered once.
type builder struct {
	Input
	self     model.Node
	config   model.FelixConfiguration
	links    map[int]model.Link
	names    map[string]model.Link
	own      map[netip.Addr]bool // the node's addresses
	nodes    map[netip.Addr]model.Node
	floats   []FloatingIP // in force
	external []ExternalRoute
	prefixes []string                      // of the names of pods' links, that of new ones first
	out      map[model.Family][]model.Link // by which the node is left; see uplinks
	namedMTU int                           // of the links that mtuIfacePattern names; 0: none
	computes bool                          // routes are computed from the blocks of all nodes
	byIPAM   []netip.Prefix                // those that are
	problems []model.Problem
}

func newCase(in Input) *builder {
	c := &builder{
		Input: in, config: settings(in),
		links: make(map[int]model.Link, len(in.Host.Links)),
		names: make(map[string]model.Link, len(in.Host.Links)),
		own:   map[netip.Addr]bool{},
		out:   map[model.Family][]model.Link{},
		nodes: make(map[netip.Addr]model.Node, len(in.Snapshot.Nodes)),
	}
	for _, l := range in.Host.Links {
		c.links[l.Index], c.names[l.Name] = l, l
		for _, a := range l.Addresses {
			c.own[a.Addr()] = true
		}
	}
	for _, n := range in.Snapshot.Nodes {
		if n.Name == in.Self {
			c.self = n
		}
		for _, p := range n.Subnets() {
			c.nodes[p.Addr()] = n
		}
	}
	c.Endpoints = c.byAge(c.Endpoints)
	c.self.IPIPTunnel = cmp.Or(in.OwnTunnels.IPIP, c.self.IPIPTunnel)
	c.self.VXLANTunnel = cmp.Or(in.OwnTunnels.VXLAN, c.self.VXLANTunnel)
	c.self.VXLANTunnelV6 = cmp.Or(in.OwnTunnels.VXLANV6, c.self.VXLANTunnelV6)
	return c
}

// byAge sorts pods by when their links were made, those without one last: where
// two want the same the older keeps it, whatever they are called.
func (c *builder) byAge(pods []model.Endpoint) []model.Endpoint {
	out := slices.Clone(pods)
	made := func(e model.Endpoint) int { return cmp.Or(c.names[e.HostInterface].Index, math.MaxInt) }
	slices.SortStableFunc(out, func(a, b model.Endpoint) int { return cmp.Compare(made(a), made(b)) })
	return out
}

func (c *builder) problem(object model.Ref, field, reason, message string) {
	c.problems = append(c.problems, model.Problem{Object: object, Field: field, Reason: reason, Message: message})
}

// settings puts the FelixConfiguration of the node over the default one, field
// by field.
func settings(in Input) model.FelixConfiguration {
	var out model.FelixConfiguration
	for _, name := range []string{"default", "node." + string(in.Self)} {
		for _, f := range in.Snapshot.Felix {
			if f.Name == name {
				out = override(out, f)
			}
		}
	}
	return out
}

func override(base, o model.FelixConfiguration) model.FelixConfiguration {
	base.Name = o.Name
	base.IPIPMTU = cmp.Or(o.IPIPMTU, base.IPIPMTU)
	base.VXLANMTU = cmp.Or(o.VXLANMTU, base.VXLANMTU)
	base.VXLANMTUV6 = cmp.Or(o.VXLANMTUV6, base.VXLANMTUV6)
	base.MTU = cmp.Or(o.MTU, base.MTU)
	base.MTUInterfaces = cmp.Or(o.MTUInterfaces, base.MTUInterfaces)
	base.VXLANPort = cmp.Or(o.VXLANPort, base.VXLANPort)
	base.VXLANVNI = cmp.Or(o.VXLANVNI, base.VXLANVNI)
	if o.NATPortMin != 0 {
		base.NATPortMin, base.NATPortMax = o.NATPortMin, o.NATPortMax
	}
	base.NATOutgoingAddress = cmp.Or(o.NATOutgoingAddress, base.NATOutgoingAddress)
	// A node may set back what the cluster has on.
	pick := func(name string, base, here bool) bool {
		if _, stated := o.Raw[name]; stated || here {
			return here
		}
		return base
	}
	base.NATExcludeHosts = pick("natOutgoingExclusions", base.NATExcludeHosts, o.NATExcludeHosts)
	base.IPIPDisabled = pick("ipipEnabled", base.IPIPDisabled, o.IPIPDisabled)
	base.VXLANDisabled = pick("vxlanEnabled", base.VXLANDisabled, o.VXLANDisabled)
	base.KeepExternalRoutes = pick("removeExternalRoutes", base.KeepExternalRoutes, o.KeepExternalRoutes)
	base.VXLANFromPods = pick("allowVXLANPacketsFromWorkloads", base.VXLANFromPods, o.VXLANFromPods)
	base.IPIPFromPods = pick("allowIPIPPacketsFromWorkloads", base.IPIPFromPods, o.IPIPFromPods)
	base.DeviceRouteSource = cmp.Or(o.DeviceRouteSource, base.DeviceRouteSource)
	base.DeviceRouteSourceV6 = cmp.Or(o.DeviceRouteSourceV6, base.DeviceRouteSourceV6)
	base.ToHost = cmp.Or(o.ToHost, base.ToHost)
	base.ServiceLoops = cmp.Or(o.ServiceLoops, base.ServiceLoops)
	base.Established = cmp.Or(o.Established, base.Established)
	base.EpochMask = cmp.Or(o.EpochMask, base.EpochMask)
	base.ClusterRoutes = cmp.Or(o.ClusterRoutes, base.ClusterRoutes)
	base.NATInterface = cmp.Or(o.NATInterface, base.NATInterface)
	base.RoutePriority = cmp.Or(o.RoutePriority, base.RoutePriority)
	base.RoutePriorityV6 = cmp.Or(o.RoutePriorityV6, base.RoutePriorityV6)
	if _, stated := o.Raw["externalNodesList"]; stated || len(o.ExternalNodes) > 0 {
		base.ExternalNodes = o.ExternalNodes
	}
	if o.FailsafeIn != nil {
		base.FailsafeIn = o.FailsafeIn
	}
	if o.FailsafeOut != nil {
		base.FailsafeOut = o.FailsafeOut
	}
	base.InterfacePrefix = cmp.Or(o.InterfacePrefix, base.InterfacePrefix)
	base.RouteRefreshSeconds = cmp.Or(o.RouteRefreshSeconds, base.RouteRefreshSeconds)
	base.IPForwardingDisabled = pick("ipForwarding", base.IPForwardingDisabled, o.IPForwardingDisabled)
	base.FloatingIPs = pick("floatingIPs", base.FloatingIPs, o.FloatingIPs)
	base.SpoofingAllowed = pick("workloadSourceSpoofing", base.SpoofingAllowed, o.SpoofingAllowed)
	raw := map[string]string{}
	for _, m := range []map[string]string{base.Raw, o.Raw} {
		for k, v := range m {
			raw[k] = v
		}
	}
	base.Raw = raw
	return base
}

// sysctls turns forwarding on for the families that pods use (Calico
// ipForwarding). These two are the only sysctls that concern the whole node.
func (c *builder) sysctls() []Sysctl {
	if c.config.IPForwardingDisabled {
		return nil
	}
	var v4, v6 bool
	for _, p := range c.Snapshot.Pools {
		v4, v6 = v4 || p.CIDR.Addr().Is4(), v6 || p.CIDR.Addr().Is6()
	}
	var out []Sysctl
	if v4 {
		out = append(out, Sysctl{Key: "net/ipv4/ip_forward", Value: "1"})
	}
	if v6 {
		out = append(out, c.keepAdvertised()...) // before the routes are lost
		out = append(out, Sysctl{Key: "net/ipv6/conf/all/forwarding", Value: "1"})
	}
	return out
}

// keepAdvertised has links whose routes come from router advertisements go on
// listening to them: a host that forwards does not unless accept_ra is 2, and
// loses its default route. Where somebody else than the kernel listens
// (accept_ra is 0) nothing is to be done. A pod is no router of the node's.
func (c *builder) keepAdvertised() []Sysctl {
	var out []Sysctl
	for _, r := range c.Host.Routes {
		l := c.links[r.LinkIndex]
		if name := l.Name; r.Protocol == protocolRA && name != "" && !c.isOurs(l) {
			out = append(out, Sysctl{Key: "net/ipv6/conf/" + name + "/accept_ra", Value: "2", If: "1"})
		}
	}
	slices.SortFunc(out, func(a, b Sysctl) int { return cmp.Compare(a.Key, b.Key) })
	return slices.Compact(out)
}
