package felix

import (
	"cmp"
	"net/netip"
	"regexp"

	"github.com/muslin-net/muslin/pkg/model"
)

// mtu is what fits through the node's uplinks, less what the widest tunnel of any
// pool adds. FelixConfiguration mtu wins.
func (c *builder) mtu() MTU {
	if c.config.MTU > 0 {
		return MTU{Pod: c.config.MTU}
	}
	out := 0
	take := func(mtu int) {
		if mtu > 0 && (out == 0 || mtu < out) {
			out = mtu
		}
	}
	ipip, v4, v6 := c.encapsulations()
	base4, base6 := c.linkMTU(c.self.IPv4), c.linkMTU(c.self.IPv6)
	take(base4)
	take(base6)
	if ipip {
		take(c.tunnelMTU(c.config.IPIPMTU, base4, ipipOverhead))
	}
	if v4 {
		take(c.tunnelMTU(c.config.VXLANMTU, base4, vxlanOverhead))
	}
	if v6 {
		take(c.tunnelMTU(c.config.VXLANMTUV6, base6, vxlanOverheadV6))
	}
	return MTU{Pod: out}
}

// linkMTU is the smallest MTU of the links by which the node is left, or of those
// that FelixConfiguration mtuIfacePattern names; 0 while the node has no such
// address, or no way out.
func (c *builder) linkMTU(node netip.Prefix) int {
	if _, there := c.carrier(node.Addr()); there && c.namedMTU > 0 {
		return c.namedMTU
	}
	smallest := 0
	for _, l := range c.uplinks(node.Addr()) {
		if smallest == 0 || l.MTU < smallest {
			smallest = l.MTU
		}
	}
	return smallest
}

func (c *builder) tunnelMTU(configured, base, overhead int) int {
	if configured > 0 || base == 0 {
		return configured
	}
	return base - overhead
}

// findNamedMTU is the smallest MTU of the links with a carrier whose names match
// FelixConfiguration mtuIfacePattern, 0 without one. Pods' links and tunnels,
// whose MTU follows from it, do not count, nor does the loopback.
func (c *builder) findNamedMTU() int {
	if c.config.MTUInterfaces == "" || !c.HostSynced {
		return 0
	}
	ref := model.Ref{Kind: "FelixConfiguration", Name: cmp.Or(c.config.Name, "default")}
	const field = "spec.mtuIfacePattern"
	pattern, err := regexp.Compile(c.config.MTUInterfaces)
	if err != nil {
		c.problem(ref, field, "InvalidValue", err.Error())
		return 0
	}
	smallest := 0
	for _, l := range c.Host.Links {
		if l.Up && pattern.MatchString(l.Name) && l.Name != loopback && !c.isOurs(l) && (smallest == 0 || l.MTU < smallest) {
			smallest = l.MTU
		}
	}
	if smallest == 0 {
		c.problem(ref, field, "NoSuchInterface",
			"no interface of this node that is up matches "+c.config.MTUInterfaces+"; the MTU is that of the links by which the node is left")
	}
	return smallest
}

// isOurs tells pods' links and tunnels from the node's own links.
func (c *builder) isOurs(l model.Link) bool {
	return c.isPods(l.Name) || isTunnel(l.Name)
}
