package kernel

import (
	"cmp"
	"context"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/nodeview"
)

// Path asks the kernel for its way to an address, looks at the neighbour there
// and sends two echoes, the second of size bytes.
func Path(ctx context.Context, to netip.Addr, size int) nodeview.Path {
	p := nodeview.Path{To: to}
	found, err := netlink.RouteGet(to.AsSlice())
	if err != nil || len(found) == 0 {
		p.Error = "no route"
		if err != nil {
			p.Error = err.Error()
		}
		return p
	}
	r := found[0]
	names, err := links(&nodeview.Kernel{})
	if err != nil {
		p.Error = err.Error()
		return p
	}
	family := unix.AF_INET
	if to.Is6() {
		family = unix.AF_INET6
	}
	shown := route(r, family, names)
	p.Route, p.Source = &shown, addr(r.Src)
	if l := names[r.LinkIndex]; l != nil {
		p.Device, p.MTU = l.Attrs().Name, l.Attrs().MTU
	}
	hop := to
	for _, h := range shown.NextHops {
		if h.Gateway.IsValid() {
			hop = h.Gateway
		}
	}
	p.Small = Echo(ctx, to, p.Source, 84)
	p.Large = Echo(ctx, to, p.Source, cmp.Or(size, 84))
	p.Neighbour = neighbour(r.LinkIndex, hop) // after the probe has made the kernel ask
	return p
}

var states = []struct {
	bit  int
	name string
}{
	{unix.NUD_REACHABLE, "reachable"}, {unix.NUD_PERMANENT, "permanent"}, {unix.NUD_STALE, "stale"}, {unix.NUD_DELAY, "delay"},
	{unix.NUD_PROBE, "probe"}, {unix.NUD_INCOMPLETE, "incomplete"}, {unix.NUD_FAILED, "failed"}, {unix.NUD_NOARP, "noarp"},
}

func neighbour(link int, hop netip.Addr) string {
	family := unix.AF_INET
	if hop.Is6() {
		family = unix.AF_INET6
	}
	list, err := again(func() ([]netlink.Neigh, error) { return netlink.NeighList(link, family) }) //nolint:forbidigo // again repeats it
	if err != nil {
		return ""
	}
	for _, n := range list {
		if addr(n.IP) != hop {
			continue
		}
		for _, s := range states {
			if n.State&s.bit != 0 {
				return strings.TrimSpace(s.name + " " + n.HardwareAddr.String())
			}
		}
	}
	return ""
}
