package gobgp

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// addPaths puts new and changed own paths into the RIB.
func (s *server) addPaths(want []bgp.Path) error {
	var errs []error
	var add []*apiutil.Path
	var taken []bgp.Path
	for _, p := range want {
		if s.paths[p.Prefix] == p {
			continue
		}
		a, err := apiPath(p, false)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		add, taken = append(add, a), append(taken, p)
	}
	if len(add) == 0 {
		return errors.Join(errs...)
	}
	if _, err := s.bgp.AddPath(apiutil.AddPathRequest{Paths: add}); err != nil {
		return errors.Join(append(errs, fmt.Errorf("announce %d prefixes: %w", len(add), err))...)
	}
	for _, p := range taken {
		s.paths[p.Prefix] = p
	}
	return errors.Join(errs...)
}

// deletePaths withdraws own paths that are no longer wanted.
func (s *server) deletePaths(want []bgp.Path) error {
	keep := map[netip.Prefix]bool{}
	for _, p := range want {
		keep[p.Prefix] = true
	}
	var gone []netip.Prefix
	var withdraw []*apiutil.Path
	for prefix, p := range s.paths {
		if keep[prefix] {
			continue
		}
		a, err := apiPath(p, true)
		if err != nil {
			return err
		}
		gone, withdraw = append(gone, prefix), append(withdraw, a)
	}
	if len(gone) == 0 {
		return nil
	}
	if err := s.bgp.DeletePath(apiutil.DeletePathRequest{Paths: withdraw}); err != nil {
		return fmt.Errorf("withdraw %d prefixes: %w", len(gone), err)
	}
	for _, prefix := range gone {
		delete(s.paths, prefix)
	}
	return nil
}

func apiPath(p bgp.Path, withdraw bool) (*apiutil.Path, error) {
	nlri, err := packet.NewIPAddrPrefix(p.Prefix)
	if err != nil {
		return nil, fmt.Errorf("announce %s: %w", p.Prefix, err)
	}
	a := &apiutil.Path{Family: packet.RF_IPv4_UC, Nlri: nlri, Withdrawal: withdraw, Attrs: []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(packet.BGP_ORIGIN_ATTR_TYPE_IGP),
		packet.NewPathAttributeLocalPref(p.LocalPref),
	}}
	if p.LastResort {
		a.Attrs = append(a.Attrs, packet.NewPathAttributeCommunities([]uint32{uint32(packet.COMMUNITY_PLANNED_SHUT)}))
	}
	var nh packet.PathAttributeInterface
	if model.FamilyOf(p.Prefix.Addr()) == model.IPv6 {
		a.Family = packet.RF_IPv6_UC
		nh, err = packet.NewPathAttributeMpReachNLRI(packet.RF_IPv6_UC, []packet.PathNLRI{{NLRI: nlri}}, p.NextHop)
	} else {
		nh, err = packet.NewPathAttributeNextHop(p.NextHop)
	}
	if err != nil {
		return nil, fmt.Errorf("announce %s via %s: %w", p.Prefix, p.NextHop, err)
	}
	a.Attrs = append(a.Attrs, nh)
	return a, nil
}
