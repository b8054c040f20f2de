package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// serviceRanges are the configured ranges of service addresses, sorted.
func (b *builder) serviceRanges() []netip.Prefix {
	var out []netip.Prefix
	for _, r := range [][]netip.Prefix{b.defaults.ServiceClusterIPs, b.defaults.ServiceExternalIPs, b.defaults.ServiceLoadBalancers} {
		for _, p := range r {
			out = append(out, p.Masked())
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// services lists the service prefixes this node announces, as Calico does:
//   - whole ranges, from every node that is not excluded from external load
//     balancers; a range of one address is no range, and load balancer ranges
//     only while serviceLoadBalancerAggregation is Enabled;
//   - single addresses of services with externalTrafficPolicy Local, and cluster IPs
//     of those with internalTrafficPolicy Local, from nodes with a ready endpoint of
//     theirs; where none is left anywhere, from nodes with
//     one that terminates and still serves, as ending;
//   - of the other services, those addresses that are configured as a range of
//     one, and load balancer addresses while aggregation is Disabled, if the
//     service has an endpoint anywhere.
//
// What an address needs is an endpoint of its own family.
func (b *builder) services() (out, ending []netip.Prefix) {
	if b.node.ExcludeFromExternalLB {
		return nil, nil
	}
	d := b.defaults
	aggregated := !d.NoLBAggregation
	out = append(ranges(d.ServiceClusterIPs), ranges(d.ServiceExternalIPs)...)
	if aggregated {
		out = append(out, ranges(d.ServiceLoadBalancers)...)
	}
	for _, s := range b.snap.Services {
		here, last := b.localAddresses(s)
		out, ending = append(out, here...), append(ending, last...)
		if s.LocalTraffic {
			continue
		}
		out = append(out, within(s.ExternalIPs, d.ServiceExternalIPs, func(h netip.Prefix) bool { return slices.Contains(d.ServiceExternalIPs, h) })...)
		out = append(out, within(s.LoadBalancerIPs, d.ServiceLoadBalancers, func(h netip.Prefix) bool {
			e := endpoints(s, h)
			return slices.Contains(d.ServiceLoadBalancers, h) || !aggregated && (e.Anywhere || e.LastAnywhere)
		})...)
	}
	return out, ending
}

// isLocal reports whether a node sends packets to an address of a service to endpoints
// of its own alone. To a cluster IP that is also by internalTrafficPolicy, wherever the
// packets come from.
func isLocal(s model.Service, h netip.Prefix) bool {
	return s.LocalTraffic || s.InternalLocal && slices.Contains(s.ClusterIPs, h.Addr())
}

// localAddresses are those addresses for which isLocal holds: with a ready endpoint
// here; and, ending, with one that terminates while none is ready anywhere.
func (b *builder) localAddresses(s model.Service) (here, ending []netip.Prefix) {
	here = b.addressesOf(s, func(h netip.Prefix, e model.Endpoints) bool { return isLocal(s, h) && e.Here })
	ending = b.addressesOf(s, func(h netip.Prefix, e model.Endpoints) bool { return isLocal(s, h) && e.LastHere && !e.Anywhere })
	return here, ending
}

// addressesOf are the addresses of a service that may be announced and are wanted.
func (b *builder) addressesOf(s model.Service, wanted func(netip.Prefix, model.Endpoints) bool) []netip.Prefix {
	served := func(h netip.Prefix) bool { return wanted(h, endpoints(s, h)) }
	return slices.Concat(within(s.ClusterIPs, b.defaults.ServiceClusterIPs, served), within(s.ExternalIPs, b.defaults.ServiceExternalIPs, served),
		within(s.LoadBalancerIPs, b.defaults.ServiceLoadBalancers, served))
}

// within gives those of some addresses that lie in allowed ranges and are wanted.
func within(as []netip.Addr, allowed []netip.Prefix, wanted func(netip.Prefix) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range as {
		if h := host(a); insideAny(allowed, h) && wanted(h) {
			out = append(out, h)
		}
	}
	return out
}

// endpoints are those of a service in the family of an address.
func endpoints(s model.Service, h netip.Prefix) model.Endpoints {
	return model.OfFamily(model.FamilyOf(h.Addr()), s.IPv4, s.IPv6)
}

// ranges drops ranges of a single address.
func ranges(ps []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range ps {
		if !p.IsSingleIP() {
			out = append(out, p)
		}
	}
	return out
}

func host(a netip.Addr) netip.Prefix {
	a = a.Unmap()
	return netip.PrefixFrom(a, a.BitLen())
}
