package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// reasonLoop is the reason of a path that has been here before.
const reasonLoop = "as path loop"

// reasonNextHop is the reason of a path that cannot be followed: an IPv6 prefix by
// way of an IPv4 address, or no next hop at all.
const reasonNextHop = "unusable next hop"

// Refused lists the prefixes that peers announce and that are not used, each
// with the reason: the rule that rejects it, or a loop in its AS path. It walks
// every peer's table, so it is for status, every half minute at most.
func (s *Speaker) Refused() ([]bgp.Refusal, error) {
	s.mu.Lock()
	srv, cfg := s.server, s.current
	s.mu.Unlock()
	if srv == nil {
		return nil, nil
	}
	var out []bgp.Refusal
	var errs []error
	for _, p := range srv.known(cfg.Peers) {
		policy, _ := cfg.Policy(bgp.Import, p.Import)
		for _, f := range p.Families {
			// not with GoBGP's own marking of filtered paths: that puts paths
			// as changed by policies back into the table of received ones
			req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_ADJ_IN, Name: p.Address.String(), Family: family(f)}
			err := srv.bgp.ListPath(req, func(_ packet.NLRI, paths []*apiutil.Path) {
				for _, path := range paths {
					if r, bad := refusal(path, p, policy); bad {
						out = append(out, r)
					}
				}
			})
			if _, still := s.config().Peer(p.Address); err != nil && still && s.running() == srv {
				errs = append(errs, fmt.Errorf("list what %s announces: %w", p.Address, err))
			}
		}
	}
	slices.SortFunc(out, func(x, y bgp.Refusal) int {
		if c := x.From.Compare(y.From); c != 0 {
			return c
		}
		return comparePrefixes(x.Prefix, y.Prefix)
	})
	return out, errors.Join(errs...)
}

// known gives those of the peers that GoBGP has: it takes a configuration peer by peer.
func (s *server) known(peers []bgp.Peer) []bgp.Peer {
	has := map[netip.Addr]bool{}
	_ = s.bgp.ListPeer(context.Background(), &api.ListPeerRequest{}, func(p *api.Peer) { // it fails when the server has stopped
		if a, err := netip.ParseAddr(p.GetState().GetNeighborAddress()); err == nil {
			has[a] = true
		}
	})
	return slices.DeleteFunc(slices.Clone(peers), func(p bgp.Peer) bool { return !has[p.Address] })
}

func refusal(path *apiutil.Path, p bgp.Peer, policy bgp.Policy) (bgp.Refusal, bool) {
	route, ok := routeOf(path)
	if !ok {
		return bgp.Refusal{}, false
	}
	out := bgp.Refusal{Prefix: route.Prefix, NextHop: route.NextHop, From: p.Address}
	own := 0
	for _, a := range route.ASPath {
		if a == p.LocalASN {
			own++
		}
	}
	if own > p.AllowedLocalASNs {
		out.Reason = reasonLoop
		return out, true
	}
	if p.External() {
		route.LocalPref = 0 // of no meaning from outside (RFC 4271 section 5.1.5)
	}
	action, from := policy.Decide(route)
	out.Reason = from
	if action != bgp.Reject && !usable(out.NextHop, out.Prefix) {
		out.Reason = reasonNextHop
		return out, true
	}
	return out, action == bgp.Reject
}

// routeOf reads what policies look at.
func routeOf(p *apiutil.Path) (bgp.Route, bool) {
	nlri, ok := p.Nlri.(*packet.IPAddrPrefix)
	if !ok {
		return bgp.Route{}, false
	}
	r := bgp.Route{Prefix: nlri.Prefix, NextHop: nextHop(p)}
	for _, a := range p.Attrs {
		switch v := a.(type) {
		case *packet.PathAttributeLocalPref:
			r.LocalPref = v.Value
		case *packet.PathAttributeCommunities:
			for _, c := range v.Value {
				r.Communities = append(r.Communities, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
			}
		case *packet.PathAttributeLargeCommunities:
			for _, c := range v.Values {
				r.Communities = append(r.Communities, fmt.Sprintf("%d:%d:%d", c.ASN, c.LocalData1, c.LocalData2))
			}
		case *packet.PathAttributeAsPath:
			for _, seg := range v.Value {
				for _, n := range seg.GetAS() {
					r.ASPath = append(r.ASPath, model.ASN(n))
				}
			}
		}
	}
	return r, true
}
