package felix

import (
	"cmp"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Route protocols of the kernel itself (linux/rtnetlink.h).
const (
	protocolRedirect = 1
	protocolKernel   = 2
	protocolRA       = 9
)

// setAside takes the routes out of Host that are to go, so that nothing else is
// decided by them, and keeps them as State.Strange has them: routes of others over
// the links of this node's pods, unless
// FelixConfiguration removeExternalRoutes is false. What the kernel made itself of
// addresses stays; what a pod made it take by router advertisements or redirects
// goes in any case.
func (c *builder) setAside() {
	pods := make(map[int]string, len(c.Endpoints))
	for _, e := range c.Endpoints {
		if l, ok := c.names[e.HostInterface]; ok {
			pods[l.Index] = l.Name
		}
	}
	stay := make([]model.HostRoute, 0, len(c.Host.Routes))
	for _, r := range c.Host.Routes {
		device, isPod := pods[r.LinkIndex]
		if isPod && (r.Protocol == protocolRA || r.Protocol == protocolRedirect || r.Protocol != protocolKernel && !c.config.KeepExternalRoutes) {
			c.external = append(c.external, ExternalRoute{Prefix: r.Prefix, Metric: r.Metric, Protocol: r.Protocol, Link: r.LinkIndex, Device: device})
		} else {
			stay = append(stay, r)
		}
	}
	c.Host.Routes = stay
	slices.SortFunc(c.external, func(a, b ExternalRoute) int {
		return cmp.Or(ComparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Link, b.Link))
	})
	c.external = slices.Compact(c.external)
}

// prioritised gives the routes the metrics of FelixConfiguration
// ipv4NormalRoutePriority and ipv6NormalRoutePriority.
func (c *builder) prioritised(routes []Route) []Route {
	v4, v6 := cmp.Or(c.config.RoutePriority, DefaultRouteMetric), cmp.Or(c.config.RoutePriorityV6, DefaultRouteMetric)
	if v4 == DefaultRouteMetric && v6 == DefaultRouteMetric {
		return routes
	}
	for i := range routes {
		routes[i].Metric = v6
		if routes[i].Prefix.Addr().Is4() {
			routes[i].Metric = v4
		}
	}
	return routes
}
