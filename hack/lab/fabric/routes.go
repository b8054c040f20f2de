package fabric

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/hack/lab/internal/netns"
)

// Dial connects from a machine's network, where its loopback answers. The host
// of the address must be an IP address.
func (f Fabric) Dial(ctx context.Context, machine, network, address string) (net.Conn, error) {
	return netns.Dial(ctx, f.Netns(machine), network, address)
}

// Route is one unicast route of a machine's main table.
type Route struct {
	To       netip.Prefix
	Via      netip.Addr // invalid for routes without next hop
	Device   string
	Protocol int
}

// Routes reads the IPv4 and IPv6 main tables of a machine.
func (f Fabric) Routes(machine string) ([]Route, error) {
	handle, err := netns.Handle(f.Netns(machine))
	if err != nil {
		return nil, fmt.Errorf("read routes of %s: %w", machine, err)
	}
	defer handle.Close()
	var all []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netns.Dump(func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("read routes of %s: %w", machine, err)
		}
		all = append(all, routes...)
	}
	devices := map[int]string{}
	links, err := netns.Dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("read links of %s: %w", machine, err)
	}
	for _, device := range links {
		devices[device.Attrs().Index] = device.Attrs().Name
	}
	routes := make([]Route, 0, len(all))
	for _, one := range all {
		routes = append(routes, readRoute(one, devices))
	}
	return routes, nil
}

func readRoute(from netlink.Route, devices map[int]string) Route {
	route := Route{Device: devices[from.LinkIndex], Protocol: int(from.Protocol)}
	if from.Dst != nil {
		if address, ok := netip.AddrFromSlice(from.Dst.IP); ok {
			bits, _ := from.Dst.Mask.Size()
			route.To = netip.PrefixFrom(address.Unmap(), bits)
		}
	}
	if address, ok := netip.AddrFromSlice(from.Gw); ok {
		route.Via = address.Unmap()
	}
	return route
}
