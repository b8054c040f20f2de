package link

import (
	"cmp"
	"errors"
	"net/netip"
	"reflect"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// table is what the kernel told so far.
type table struct {
	links     map[int]model.Link // without addresses
	addresses map[int]map[netip.Prefix]struct{}
	routes    []model.HostRoute
}

func newTable() table {
	return table{links: map[int]model.Link{}, addresses: map[int]map[netip.Prefix]struct{}{}}
}

// host makes the published value: sorted, sharing nothing with the table but
// the routes, which are replaced and never changed.
func (t *table) host() model.Host {
	h := model.Host{Links: make([]model.Link, 0, len(t.links)), Routes: t.routes}
	for _, l := range t.links {
		for p := range t.addresses[l.Index] {
			l.Addresses = append(l.Addresses, p)
		}
		slices.SortFunc(l.Addresses, felix.ComparePrefix)
		h.Links = append(h.Links, l)
	}
	slices.SortFunc(h.Links, func(a, b model.Link) int { return cmp.Compare(a.Index, b.Index) })
	return h
}

func equal(a, b model.Host) bool { return reflect.DeepEqual(a, b) }

func (t *table) readLinks(c *nl.Conn) error {
	links := nl.AppendHeader(nil, unix.RTM_GETLINK, unix.NLM_F_DUMP)
	links = nl.EndMessage(append(links, make([]byte, unix.SizeofIfInfomsg)...), 0)
	err := c.Dump(links, func() { clear(t.links) }, func(m nl.Message) { t.linkMessage(m) })
	if err != nil {
		return err
	}
	addrs := nl.AppendHeader(nil, unix.RTM_GETADDR, unix.NLM_F_DUMP)
	addrs = nl.EndMessage(append(addrs, make([]byte, unix.SizeofIfAddrmsg)...), 0)
	return c.Dump(addrs, func() { clear(t.addresses) }, func(m nl.Message) { t.addressMessage(m) })
}

// linkMessage takes in RTM_NEWLINK and RTM_DELLINK and returns the link before
// and after; ok is false when the message is about something else (a bridge
// port).
func (t *table) linkMessage(m nl.Message) (before, after model.Link, ok bool) {
	if len(m.Data) < unix.SizeofIfInfomsg || m.Data[0] != unix.AF_UNSPEC {
		return before, after, false
	}
	index := int(nl.Uint32(m.Data[4:]))
	before = t.links[index]
	if m.Type == unix.RTM_DELLINK {
		delete(t.links, index)
		delete(t.addresses, index)
		return before, after, true
	}
	after = nl.ParseLink(m.Data)
	t.links[index] = after
	return before, after, true
}

// addressMessage takes in RTM_NEWADDR and RTM_DELADDR.
func (t *table) addressMessage(m nl.Message) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return
	}
	index := int(nl.Uint32(m.Data[4:]))
	p := nl.ParseAddress(m.Data)
	if !p.IsValid() {
		return
	}
	if m.Type == unix.RTM_DELADDR {
		delete(t.addresses[index], p)
		return
	}
	if t.addresses[index] == nil {
		t.addresses[index] = map[netip.Prefix]struct{}{}
	}
	t.addresses[index][p] = struct{}{}
}

// readRoutes lists the unicast routes of the main table that others wrote. A
// multipath route gives one HostRoute a link.
func readRoutes(c *nl.Conn) ([]model.HostRoute, error) {
	if err := c.Settle(); err != nil {
		return nil, err
	}
	var out []model.HostRoute
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		req := nl.AppendHeader(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
		req = append(req, fam, 0, 0, 0, unix.RT_TABLE_MAIN, 0, 0, 0, 0, 0, 0, 0)
		req = nl.EndMessage(req, 0)
		start := len(out)
		err := c.Dump(req, func() { out = out[:start] }, func(m nl.Message) { out = appendForeign(out, m.Data) })
		// A namespace without any route of the family has no table yet.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b model.HostRoute) int {
		return cmp.Or(felix.ComparePrefix(a.Prefix, b.Prefix), cmp.Compare(a.Metric, b.Metric),
			cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.LinkIndex, b.LinkIndex),
			slices.CompareFunc(a.Gateways, b.Gateways, netip.Addr.Compare))
	})
	return out, nil
}

func appendForeign(out []model.HostRoute, b []byte) []model.HostRoute {
	rt, h, ok := nl.ParseRoute(b)
	if !ok || !foreign(rt, h) {
		return out
	}
	byLink := map[int]int{}
	for _, hop := range rt.NextHops {
		i, ok := byLink[hop.Link]
		if !ok {
			i = len(out)
			byLink[hop.Link] = i
			out = append(out, model.HostRoute{
				Prefix: rt.Prefix, LinkIndex: hop.Link, Protocol: int(h.Protocol), Metric: rt.Metric,
			})
		}
		if hop.Gateway.IsValid() {
			out[i].Gateways = append(out[i].Gateways, hop.Gateway)
		}
	}
	return out
}

// rtmFCloned marks an entry of the route cache, which is no route.
const rtmFCloned = 0x200

// foreign leaves out our own routes, and the link-local prefix of every link,
// which resolves nothing that has not a zone already.
func foreign(rt felix.Route, h nl.RouteHeader) bool {
	return h.Protocol != model.RouteProtocol && h.Type == unix.RTN_UNICAST &&
		h.Flags&rtmFCloned == 0 && !rt.Prefix.Addr().IsLinkLocalUnicast() && !rt.Prefix.Addr().IsMulticast()
}
