package agent

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// floatingBook holds the addresses of pods that BGP tells of and IPAM does not
// know: floating ones that the kernel rewrites already, and those that pods
// bring and the kernel has a route for.
type floatingBook struct {
	mu  sync.Mutex
	now []netip.Prefix
}

// set reports whether the addresses are other ones than before.
func (b *floatingBook) set(to []netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(b.now, to) {
		return false
	}
	b.now = to
	return true
}

func (b *floatingBook) get() []netip.Prefix {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// givenInPools are the addresses that pods have without IPAM, as host prefixes,
// as far as BGP tells of them: like Calico it does so for what an IPPool
// contains. Routes to all others are for whoever chose the address to make.
func givenInPools(pods []model.Endpoint, pools []model.Pool) (out []netip.Prefix) {
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
