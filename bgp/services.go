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
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

// services lists the service prefixes this node announces, as Calico does:
//   - whole ranges, from every node that is not excluded from external load
//     balancers; a range of one address is no range, and load balancer ranges
//     only while serviceLoadBalancerAggregation is Enabled;
//   - single addresses of services with externalTrafficPolicy Local, from nodes
//     with a ready endpoint of theirs;
//   - of the other services, those addresses that are configured as a range of
//     one, and load balancer addresses while aggregation is Disabled, if the
//     service has a ready endpoint anywhere.
func (b *builder) services() []netip.Prefix {
	if b.node.ExcludeFromExternalLB {
		return nil
	}
	d := b.defaults
	aggregated := d.ServiceLBAggregation != "Disabled"
	out := ranges(d.ServiceClusterIPs)
	out = append(out, ranges(d.ServiceExternalIPs)...)
	if aggregated {
		out = append(out, ranges(d.ServiceLoadBalancers)...)
	}
	for _, s := range b.snap.Services {
		out = append(out, b.serviceAddresses(s, aggregated)...)
	}
	return out
}

func (b *builder) serviceAddresses(s model.Service, aggregated bool) []netip.Prefix {
	d := b.defaults
	var out []netip.Prefix
	add := func(as []netip.Addr, allowed []netip.Prefix, wanted func(netip.Prefix) bool) {
		for _, a := range as {
			h := host(a)
			if insideAny(allowed, h) && wanted(h) {
				out = append(out, h)
			}
		}
	}
	if s.LocalTraffic {
		local := func(netip.Prefix) bool { return s.ReadyLocal }
		add(s.ClusterIPs, d.ServiceClusterIPs, local)
		add(s.ExternalIPs, d.ServiceExternalIPs, local)
		add(s.LoadBalancerIPs, d.ServiceLoadBalancers, local)
		return out
	}
	add(s.ExternalIPs, d.ServiceExternalIPs, func(h netip.Prefix) bool { return slices.Contains(d.ServiceExternalIPs, h) })
	add(s.LoadBalancerIPs, d.ServiceLoadBalancers, func(h netip.Prefix) bool {
		return slices.Contains(d.ServiceLoadBalancers, h) || !aggregated && s.Ready
	})
	return out
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
