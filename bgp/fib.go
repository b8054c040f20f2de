package bgp

import (
	"cmp"
	"net/netip"
	"path"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// FIB tells over which interfaces the node reaches addresses, as its kernel
// has it. The zero value knows of none.
type FIB struct {
	routes []fibRoute            // sorted by prefix; one a prefix
	pods   map[netip.Addr]string // addresses of this node's pods → their host interface
	links  []Link                // those with global addresses, as the kernel numbers them
	addrs  []netip.Addr          // every address of the node but link-local and loopback ones
}

// Asks says what of a node's Ways DesiredOn looks at for a snapshot: what it does
// not look at need not be read, and is no reason to compute anything again.
type Asks struct {
	routes bool // some filter in force names an interface
	links  bool // some peer is outside the cluster
	addrs  bool // some peer names the address to speak from
}

// AsksOf tells what a snapshot asks for.
func AsksOf(snap model.Snapshot) Asks {
	return Asks{
		routes: asksForInterfaces(snap),
		links:  slices.ContainsFunc(snap.Peers, func(o model.BGPPeer) bool { return o.PeerIP.IsValid() }),
		addrs:  slices.ContainsFunc(snap.Peers, func(o model.BGPPeer) bool { return o.Annotations[AnnotationSource] != "" }),
	}
}

// FIB reads what is asked for of the node's kernel and pods.
func (a Asks) FIB(h model.Host, pods []model.Endpoint) FIB {
	var w FIB
	if a.routes {
		w = routesOf(h, pods)
	}
	if a.links {
		w.links = linksOf(h)
	}
	if a.addrs {
		w.addrs = addrsOf(h)
	}
	return w
}

// addrsOf lists the addresses that a session may be opened from, also those of a
// loopback interface.
func addrsOf(h model.Host) []netip.Addr {
	var out []netip.Addr
	for _, l := range h.Links {
		for _, p := range l.Addresses {
			if a := p.Addr(); !a.IsLoopback() && !a.IsLinkLocalUnicast() {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// linksOf lists the links by which a peer may be reached directly.
func linksOf(h model.Host) []Link {
	var out []Link
	for _, l := range h.Links {
		nets := slices.DeleteFunc(slices.Clone(l.Addresses), func(p netip.Prefix) bool {
			return p.Addr().IsLinkLocalUnicast() || p.Addr().IsLoopback() || p.IsSingleIP()
		})
		if len(nets) > 0 {
			out = append(out, Link{l.Name, nets})
		}
	}
	return out
}

// link finds the link on whose subnet an address is, or that is its zone.
func (w FIB) link(a netip.Addr) Link {
	zone := a.Zone()
	if i := slices.IndexFunc(w.links, func(l Link) bool { return l.Name == zone || zone == "" && l.Holds(a) }); i >= 0 {
		return w.links[i]
	}
	return Link{Name: zone}
}

// linkLocals are in use on each link: no route says which one is meant.
var linkLocals = netip.MustParsePrefix("fe80::/10")

// fibRoute is a route: what lies in prefix, and in no longer one, leaves by one of
// the interfaces.
type fibRoute struct {
	prefix     netip.Prefix
	interfaces []string // sorted
}

// NewFIB reads all that DesiredOn may look at.
func NewFIB(h model.Host, pods []model.Endpoint) FIB { return Asks{true, true, true}.FIB(h, pods) }

// routesOf reads the node's routes and pods. What BGP itself has put into the
// kernel is not among the routes: next hops are not resolved through what was
// learned with next hops (BIRD keeps to the same).
func routesOf(h model.Host, pods []model.Endpoint) FIB {
	names := map[int]string{}
	for _, l := range h.Links {
		names[l.Index] = l.Name
	}
	best := map[netip.Prefix]int{} // the least metric
	for _, r := range h.Routes {
		if m, ok := best[r.Prefix]; !ok || r.Metric < m {
			best[r.Prefix] = r.Metric
		}
	}
	by := map[netip.Prefix][]string{}
	for _, r := range h.Routes {
		name, known := names[r.LinkIndex]
		if known && r.Metric == best[r.Prefix] && !linkLocals.Contains(r.Prefix.Addr()) {
			by[r.Prefix.Masked()] = append(by[r.Prefix.Masked()], name)
		}
	}
	w := FIB{pods: map[netip.Addr]string{}}
	for p, list := range by {
		slices.Sort(list)
		w.routes = append(w.routes, fibRoute{p, slices.Compact(list)})
	}
	slices.SortFunc(w.routes, compareRoutes)
	for _, e := range pods {
		for _, a := range slices.Concat(e.Addresses, e.FloatingIPs) {
			w.pods[a] = e.HostInterface
		}
	}
	return w
}

func compareRoutes(x, y fibRoute) int { return x.prefix.Compare(y.prefix) }

// Equal reports whether both say the same of every address.
func (w FIB) Equal(o FIB) bool {
	same := func(x, y fibRoute) bool { return x.prefix == y.prefix && slices.Equal(x.interfaces, y.interfaces) }
	sameLink := func(x, y Link) bool { return x.Name == y.Name && slices.Equal(x.Nets, y.Nets) }
	if !slices.EqualFunc(w.routes, o.routes, same) || !slices.EqualFunc(w.links, o.links, sameLink) || !slices.Equal(w.addrs, o.addrs) || len(w.pods) != len(o.pods) {
		return false
	}
	for a, name := range w.pods {
		if o.pods[a] != name {
			return false
		}
	}
	return true
}

// through gives Ways in which addr is reached as gateway is.
func (w FIB) through(addr, gateway netip.Addr) FIB {
	i := slices.IndexFunc(w.longestFirst(), func(x fibRoute) bool { return x.prefix.Contains(gateway) })
	if i < 0 {
		return w
	}
	p := host(addr)
	routes := slices.DeleteFunc(slices.Clone(w.routes), func(x fibRoute) bool { return x.prefix == p })
	routes = append(routes, fibRoute{p, w.longestFirst()[i].interfaces})
	slices.SortFunc(routes, compareRoutes)
	w.routes = routes
	return w
}

func (w FIB) longestFirst() []fibRoute {
	out := slices.Clone(w.routes)
	slices.SortStableFunc(out, func(x, y fibRoute) int { return cmp.Compare(y.prefix.Bits(), x.prefix.Bits()) })
	return out
}

// behind lists the addresses that are reached over an interface that matches
// pattern, as the fewest prefixes that hold them and nothing else.
func (w FIB) behind(pattern string) []netip.Prefix {
	var four, six []decided
	for _, r := range w.routes {
		d := decided{r.prefix, slices.ContainsFunc(r.interfaces, func(name string) bool { return matchesName(pattern, name) })}
		if r.prefix.Addr().Is4() {
			four = append(four, d)
		} else {
			six = append(six, d)
		}
	}
	six = append(six, decided{linkLocals, false})
	slices.SortFunc(six, func(x, y decided) int { return x.prefix.Compare(y.prefix) })
	return append(cover(netip.MustParsePrefix("0.0.0.0/0"), false, four), cover(netip.MustParsePrefix("::/0"), false, six)...)
}

// matchesName compares a name with a pattern in which * stands for any text.
// Names of interfaces hold no slash, at which path.Match would stop.
func matchesName(pattern, name string) bool {
	ok, err := path.Match(pattern, name)
	return ok && err == nil
}

// decided is a prefix whose addresses are wanted or not, unless a longer one
// says otherwise.
type decided struct {
	prefix netip.Prefix
	wanted bool
}

// fewest are the fewest prefixes that hold the addresses of a list and no others.
func fewest(list []netip.Prefix) []netip.Prefix {
	var four, six []decided
	masked := make([]netip.Prefix, len(list))
	for i, p := range list {
		masked[i] = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked()
	}
	slices.SortFunc(masked, netip.Prefix.Compare)
	for _, p := range slices.Compact(masked) {
		if d := (decided{p, true}); p.Addr().Is4() {
			four = append(four, d)
		} else {
			six = append(six, d)
		}
	}
	return append(cover(netip.MustParsePrefix("0.0.0.0/0"), false, four), cover(netip.MustParsePrefix("::/0"), false, six)...)
}

// cover lists what is wanted of p. in are the prefixes inside it, sorted;
// wanted is what holds where none of them lies.
func cover(p netip.Prefix, wanted bool, in []decided) []netip.Prefix {
	if len(in) > 0 && in[0].prefix == p {
		wanted, in = in[0].wanted, in[1:]
	}
	switch {
	case len(in) == 0 && wanted:
		return []netip.Prefix{p}
	case len(in) == 0:
		return nil
	}
	low, high := halves(p)
	i, _ := slices.BinarySearchFunc(in, high.Addr(), func(d decided, a netip.Addr) int { return d.prefix.Addr().Compare(a) })
	out := append(cover(low, wanted, in[:i]), cover(high, wanted, in[i:])...)
	if len(out) == 2 && out[0] == low && out[1] == high {
		return []netip.Prefix{p}
	}
	return out
}

// halves divides a prefix that is no single address.
func halves(p netip.Prefix) (low, high netip.Prefix) {
	bits := p.Bits()
	b := p.Addr().AsSlice()
	b[bits/8] |= 0x80 >> (bits % 8)
	second, _ := netip.AddrFromSlice(b)
	return netip.PrefixFrom(p.Addr(), bits+1), netip.PrefixFrom(second, bits+1)
}
