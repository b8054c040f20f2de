// Package router writes the other half of a node's BGP sessions: the
// configuration of the router at their far end, in the router's own language.
//
// It is pure: the nodes' desired configurations go in, text comes out. Passwords
// never do: a placeholder stands in their place. Kernel and wire footprint:
// none.
package router

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// Router is a router at the far end of nodes' sessions.
type Router struct {
	Address   netip.Addr // by which the nodes know it; names the router
	ASN       model.ASN
	ID        netip.Addr // an IPv4 address; Address where it is one
	Listen    netip.Prefix
	Neighbors []Neighbor
	Pools     []netip.Prefix // what nodes may announce
	Limit     int            // prefixes a node may announce
}

// Neighbor is a node.
type Neighbor struct {
	Name     model.NodeName
	Address  netip.Addr
	ASN      model.ASN
	Port     int
	Local    netip.Addr // the router's address
	Password bool
	BFD      *bgp.BFD
	TTL      int // hops of TTL security; 0: off
	V4, V6   bool
}

// Routers collects the routers that nodes peer with, sorted by address.
func Routers(nodes map[model.NodeName]bgp.Config, pools []model.Pool, limit int) []Router {
	found := map[netip.Addr]*Router{}
	for name, c := range nodes {
		for _, p := range c.Peers {
			if p.InCluster || !p.Address.IsValid() {
				continue
			}
			r := found[p.Address]
			if r == nil {
				r = &Router{Address: p.Address, ASN: p.ASN, ID: p.Address, Limit: limit}
				found[p.Address] = r
			}
			local := p.LocalAddress
			if !local.IsValid() {
				local = nodeAddress(c, model.FamilyOf(p.Address))
			}
			r.Neighbors = append(r.Neighbors, Neighbor{
				Name: name, Address: local, ASN: p.LocalASN, Port: c.ListenPort, Local: p.Address, Password: !p.Password.IsZero(), BFD: p.BFD,
				TTL: p.TTLSecurity, V4: slices.Contains(p.Families, model.IPv4), V6: slices.Contains(p.Families, model.IPv6),
			})
		}
	}
	var out []Router
	for _, r := range found {
		for _, p := range pools {
			r.Pools = append(r.Pools, p.CIDR.Masked())
		}
		slices.SortFunc(r.Pools, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
		slices.SortFunc(r.Neighbors, func(a, b Neighbor) int {
			return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Name, b.Name))
		})
		if !r.ID.Is4() {
			r.ID = netip.AddrFrom4([4]byte{192, 0, 2, 1})
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Router) int { return a.Address.Compare(b.Address) })
	return out
}

func nodeAddress(c bgp.Config, f model.Family) netip.Addr {
	for _, p := range c.Paths {
		if f.Has(p.NextHop) {
			return p.NextHop
		}
	}
	return c.RouterID
}

// Formats that can be written.
var Formats = []string{"frr", "bird", "sonic", "eos", "junos", "nxos"}

// Write gives the configuration in one format.
func (r Router) Write(format string) (string, error) {
	f := map[string]func(Router) string{"frr": frr, "bird": bird, "sonic": sonic, "eos": eos, "junos": junos, "nxos": nxos}[format]
	if f == nil {
		return "", fmt.Errorf("unknown format %q: one of %v", format, Formats)
	}
	return f(r), nil
}

// password is the placeholder of a peer's password.
const password = "CHANGE-ME"

// oneAS is the AS number of all neighbours, for a listen range.
func (r Router) oneAS() model.ASN {
	if len(r.Neighbors) == 0 {
		return model.DefaultASN
	}
	return r.Neighbors[0].ASN
}

func (r Router) v4() []netip.Prefix { return model.IPv4.Of(r.Pools) }
func (r Router) v6() []netip.Prefix { return model.IPv6.Of(r.Pools) }
