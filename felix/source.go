package felix

import (
	"cmp"
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// sources gives routes the source address that the node prefers
// (FelixConfiguration deviceRouteSourceAddress, deviceRouteSourceAddressIPv6):
// towards its pods, and towards what BGP learned, as Calico's Felix does for what
// it programs.
type sources struct {
	v4, v6 netip.Addr
	groups map[sourcedGroup]*NextHopGroup // routes that share a way go on sharing one
}

type sourcedGroup struct {
	group  *NextHopGroup
	family model.Family
}

func (c *builder) sources() *sources {
	ref := model.Ref{Kind: "FelixConfiguration", Name: cmp.Or(c.config.Name, "default")}
	own := func(a netip.Addr, field string) netip.Addr {
		if a.IsValid() && !c.own[a] {
			c.problem(ref, field, "AddressNotOnNode", a.String()+" is no address of this node; the kernel chooses the source")
			return netip.Addr{}
		}
		return a
	}
	return &sources{
		v4:     own(c.config.DeviceRouteSource, "spec.deviceRouteSourceAddress"),
		v6:     own(c.config.DeviceRouteSourceV6, "spec.deviceRouteSourceAddressIPv6"),
		groups: map[sourcedGroup]*NextHopGroup{},
	}
}

// on is the way of a route to p, with the source of its family.
func (s *sources) on(group *NextHopGroup, p netip.Prefix) *NextHopGroup {
	f := model.FamilyOf(p.Addr())
	source := model.OfFamily(f, s.v4, s.v6)
	if !source.IsValid() || !f.Has(source) {
		return group
	}
	key := sourcedGroup{group, f}
	out, ok := s.groups[key]
	if !ok {
		with := *group
		with.Source = source
		out = &with
		s.groups[key] = out
	}
	return out
}
