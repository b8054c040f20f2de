package felix

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// carrier is the link that has addr; false while there is none.
func (c *builder) carrier(addr netip.Addr) (model.Link, bool) {
	for _, l := range c.Host.Links {
		for _, p := range l.Addresses {
			if p.Addr() == addr {
				return l, true
			}
		}
	}
	return model.Link{}, false
}

// leadsNowhere tells links that only hold addresses from those that packets leave
// by: a node with several routers has its address on the loopback, or on a dummy
// or VRF device.
func leadsNowhere(l model.Link) bool {
	return l.Name == loopback || l.Kind == "dummy" || l.Kind == "vrf"
}

const loopback = "lo"

// uplinks are the links by which the node is left with its address addr: the one
// that carries it or, where that leads nowhere, those that are up and have a
// default route or lead to the next hop of a learned one.
func (c *builder) uplinks(addr netip.Addr) []model.Link {
	l, ok := c.carrier(addr)
	switch {
	case !ok:
		return nil
	case !leadsNowhere(l):
		return []model.Link{l}
	}
	f := model.FamilyOf(addr)
	out, known := c.out[f]
	if !known {
		out = c.nextHopsOut(f)
		c.out[f] = out
	}
	return out
}

func (c *builder) nextHopsOut(f model.Family) []model.Link {
	var out []model.Link
	take := func(index int) {
		if l := c.links[index]; l.Up && !leadsNowhere(l) && !c.isOurs(l) {
			out = append(out, l)
		}
	}
	for _, r := range c.Host.Routes {
		if r.Prefix.Bits() == 0 && f.Has(r.Prefix.Addr()) {
			take(r.LinkIndex)
		}
	}
	// What a next hop is reached through by way of another learned route is the
	// next hop of that one.
	r := newResolver(c, nil)
	var last *model.Multipath
	for i := range c.Learned {
		m := c.Learned[i].Multipath
		if m == last || !f.Has(c.Learned[i].Prefix.Addr()) {
			continue
		}
		for _, nh := range m.NextHops {
			hops, done := r.found[nh]
			if !done {
				hops = r.resolve(nh, 1)
				r.found[nh] = hops
			}
			for _, h := range hops {
				if !done {
					take(h.Link)
				}
			}
		}
		last = m
	}
	slices.SortFunc(out, func(a, b model.Link) int { return cmp.Compare(a.Index, b.Index) })
	return slices.CompactFunc(out, func(a, b model.Link) bool { return a.Index == b.Index })
}

// parent is the link that a tunnel with the outer address addr is bound to; 0
// where the route to the other end decides, since there may be several ways.
func (c *builder) parent(addr netip.Addr) int {
	if l, ok := c.carrier(addr); ok && !leadsNowhere(l) {
		return l.Index
	}
	return 0
}
