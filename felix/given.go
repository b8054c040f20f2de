package felix

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// GivenInPools are the addresses that pods have without IPAM, as host prefixes,
// as far as BGP tells of them: like Calico it does so for what an IPPool
// contains. Routes to all others are for whoever chose the address to make.
func GivenInPools(pods []model.Endpoint, pools []model.Pool) (out []netip.Prefix) {
	for _, ep := range pods {
		if ep.WithoutIPAM == "" {
			continue
		}
		for _, addr := range ep.Addresses {
			if slices.ContainsFunc(pools, func(p model.Pool) bool { return p.CIDR.Contains(addr) }) {
				out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			}
		}
	}
	return out
}
