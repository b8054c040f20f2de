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
	ways   map[sourcedWay]*Way // routes that share a way go on sharing one
}

type sourcedWay struct {
	way *Way
	v4  bool
}

func (c *casefile) sources() *sources {
	ref := model.Ref{Kind: "FelixConfiguration", Name: cmp.Or(c.config.Name, "default")}
	own := func(a netip.Addr, field string) netip.Addr {
		if a.IsValid() && !c.own[a] {
			c.problem(ref, field, "AddressNotOnNode", a.String()+" is no address of this node; the kernel chooses the source")
			return netip.Addr{}
		}
		return a
	}
	return &sources{
		v4:   own(c.config.DeviceRouteSource, "spec.deviceRouteSourceAddress"),
		v6:   own(c.config.DeviceRouteSourceV6, "spec.deviceRouteSourceAddressIPv6"),
		ways: map[sourcedWay]*Way{},
	}
}

// on is the way of a route to p, with the source of its family.
func (s *sources) on(way *Way, p netip.Prefix) *Way {
	v4 := p.Addr().Is4()
	source := s.v6
	if v4 {
		source = s.v4
	}
	if !source.IsValid() || source.Is4() != v4 {
		return way
	}
	key := sourcedWay{way, v4}
	out, ok := s.ways[key]
	if !ok {
		with := *way
		with.Source = source
		out = &with
		s.ways[key] = out
	}
	return out
}
