package kernel

import (
	"cmp"
	"errors"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/nodeview"
)

// tries is how often an interrupted dump is begun again.
const tries = 5

// Read reads the kernel; what cannot be read is named in Errors.
func Read() nodeview.Kernel {
	var k nodeview.Kernel
	note := func(what string, err error) {
		if err != nil {
			k.Errors = append(k.Errors, what+": "+err.Error())
		}
	}
	names, err := links(&k)
	note("links", err)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		list, err := again(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE) //nolint:forbidigo // again repeats it
		})
		note("routes", err)
		for _, r := range list {
			k.Routes = append(k.Routes, route(r, family, names))
		}
	}
	slices.SortStableFunc(k.Routes, func(a, b nodeview.Route) int {
		return cmp.Or(a.Prefix.Compare(b.Prefix), cmp.Compare(a.Metric, b.Metric))
	})
	k.Chains, err = chains()
	note("nftables", err)
	return k
}

// again repeats a dump that a change has interrupted.
func again[T any](dump func() ([]T, error)) (out []T, err error) {
	for range tries {
		if out, err = dump(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func links(k *nodeview.Kernel) (map[int]netlink.Link, error) {
	list, err := again(netlink.LinkList) //nolint:forbidigo // again repeats it
	names := map[int]netlink.Link{}
	for _, l := range list {
		a := l.Attrs()
		names[a.Index] = l
		k.Links = append(k.Links, nodeview.Link{Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0 && a.RawFlags&unix.IFF_LOWER_UP != 0})
	}
	return names, err
}

var types = map[int]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_BLACKHOLE: "blackhole", unix.RTN_UNREACHABLE: "unreachable", unix.RTN_PROHIBIT: "prohibit", unix.RTN_LOCAL: "local",
}

func route(r netlink.Route, family int, names map[int]netlink.Link) nodeview.Route {
	out := nodeview.Route{Prefix: prefix(r.Dst, family), Type: cmp.Or(types[r.Type], "other"), Protocol: int(r.Protocol), Metric: r.Priority}
	hop := func(gw net.IP, via netlink.Destination, index, flags int) {
		if v, ok := via.(*netlink.Via); ok && gw == nil {
			gw = v.Addr
		}
		h := nodeview.NextHop{Gateway: addr(gw), Down: flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0}
		if l := names[index]; l != nil {
			h.Device = l.Attrs().Name
		}
		out.NextHops = append(out.NextHops, h)
	}
	for _, h := range r.MultiPath {
		hop(h.Gw, h.Via, h.LinkIndex, h.Flags)
	}
	if len(r.MultiPath) == 0 && r.LinkIndex != 0 && out.Type == "unicast" {
		hop(r.Gw, r.Via, r.LinkIndex, r.Flags)
	}
	return out
}

func prefix(n *net.IPNet, family int) netip.Prefix {
	if n == nil {
		if family == unix.AF_INET {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), bits)
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
