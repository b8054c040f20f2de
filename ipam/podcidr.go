package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/model"
)

// PodCIDRs assigns addresses out of node.spec.podCIDRs, for clusters in which
// Kubernetes hands out the prefixes (CNI "host-local" with Calico's
// usePodCidr). There are no objects: what is in use is what the node's
// workloads have, told by Adopt at start.
//
// The first two addresses of a prefix and the last of an IPv4 one are left
// out, as the host-local plugin does, which takes them for network, gateway
// and broadcast. Every method is safe for concurrent use.
type PodCIDRs struct {
	mu       sync.Mutex
	node     model.NodeName // for errors
	prefixes []netip.Prefix
	owned    map[string][]netip.Addr // by handle
	used     map[netip.Addr]string
	last     map[netip.Prefix]netip.Addr // the one assigned last: the search goes on after it
}

// NewPodCIDRs makes an allocator without prefixes.
func NewPodCIDRs() *PodCIDRs {
	return &PodCIDRs{owned: map[string][]netip.Addr{}, used: map[netip.Addr]string{}, last: map[netip.Prefix]netip.Addr{}}
}

// SetPrefixes replaces the prefixes, which are those of a node. Addresses
// outside them stay with their owners.
func (c *PodCIDRs) SetPrefixes(node model.NodeName, prefixes []netip.Prefix) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.node, c.prefixes = node, slices.Clone(prefixes)
}

// Adopt tells which addresses a workload has.
func (c *PodCIDRs) Adopt(handle string, addrs []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range addrs {
		if c.used[a] == "" {
			c.used[a] = handle
			c.owned[handle] = append(c.owned[handle], a)
		}
	}
}

// Assign gives a handle one address of each family asked for; again the same
// ones. All or nothing. Errors are *Error with CodeNoPool or CodePoolExhausted.
func (c *PodCIDRs) Assign(handle string, families []model.Family) ([]netip.Addr, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out, added []netip.Addr
	for _, f := range families {
		have := slices.IndexFunc(c.owned[handle], func(a netip.Addr) bool { return f.Has(a) })
		if have >= 0 {
			out = append(out, c.owned[handle][have])
			continue
		}
		addr, err := c.next(f)
		if err != nil {
			for _, a := range added {
				delete(c.used, a)
			}
			return nil, err
		}
		c.used[addr] = handle
		added = append(added, addr)
		out = append(out, addr)
	}
	c.owned[handle] = append(c.owned[handle], added...)
	return out, nil
}

// next finds the free address that follows the one assigned last. Callers hold
// mu.
func (c *PodCIDRs) next(f model.Family) (netip.Addr, error) {
	seen := false
	for _, p := range c.prefixes {
		if !f.Has(p.Addr()) {
			continue
		}
		seen = true
		start := c.last[p]
		if !start.IsValid() {
			start = p.Addr()
		}
		// No more addresses are tried than are in use, and the three left out.
		addr := start
		for range len(c.used) + 4 {
			if addr = addr.Next(); !p.Contains(addr) {
				addr = p.Addr()
			}
			if c.used[addr] == "" && assignable(p, addr) {
				c.last[p] = addr
				return addr, nil
			}
		}
	}
	node := model.Ref{Kind: "Node", Name: string(c.node)}
	if !seen {
		return netip.Addr{}, &Error{Code: CodeNoPool, Object: node, Field: "spec.podCIDRs",
			Detail: fmt.Sprintf("it has no %s prefix", f), Hint: "run kube-controller-manager with --allocate-node-cidrs, or use IPPools"}
	}
	return netip.Addr{}, &Error{Code: CodePoolExhausted, Object: node, Field: "spec.podCIDRs",
		Detail: fmt.Sprintf("every %s address is in use", f), Hint: "give nodes larger prefixes"}
}

// assignable leaves out network, gateway and broadcast.
func assignable(p netip.Prefix, a netip.Addr) bool {
	if a == p.Addr() || a == p.Addr().Next() {
		return false
	}
	return a.Is6() || p.Contains(a.Next())
}

// Release takes a handle's addresses from it. An unknown handle is no error.
func (c *PodCIDRs) Release(handle string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.owned[handle] {
		delete(c.used, a)
	}
	delete(c.owned, handle)
}

// Addresses are the addresses of a handle.
func (c *PodCIDRs) Addresses(handle string) []netip.Addr {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.owned[handle])
}

// Handles are the handles that have an address, in ascending order.
func (c *PodCIDRs) Handles() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Sorted(maps.Keys(c.owned))
}

// Prefixes are the prefixes that SetPrefixes set.
func (c *PodCIDRs) Prefixes() []netip.Prefix {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.prefixes)
}
