package alloc

import (
	"net/netip"
	"slices"
	"sync"
)

// chosen collects what the parts of an assignment have chosen, each on the
// goroutine that leads its block's next write, for Request.Chosen.
type chosen struct {
	mu    sync.Mutex
	parts map[*part][]netip.Addr
}

// expect starts a round. Addresses of other nodes' blocks, and what completes
// an earlier assignment, are not told of in advance: there another node's
// write is likelier to come between.
func (c *chosen) expect(have map[netip.Addr]netip.Prefix, parts []*part) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.parts = nil
	if len(have) > 0 || slices.ContainsFunc(parts, func(p *part) bool { return p.foreign || p.addr.IsValid() }) {
		return
	}
	c.parts = map[*part][]netip.Addr{}
	for _, p := range parts {
		c.parts[p] = nil
	}
}

// take notes what a part has chosen and calls tell once all have.
func (c *chosen) take(p *part, tell func([]netip.Addr)) {
	if tell == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.parts[p]; !ok {
		return
	}
	c.parts[p] = slices.Clone(p.got)
	var all []netip.Addr
	for p, got := range c.parts {
		if len(got) != p.n {
			return
		}
		all = append(all, got...)
	}
	slices.SortFunc(all, netip.Addr.Compare) // IPv4 before IPv6, as Assign answers
	tell(all)
}
