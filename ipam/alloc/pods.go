package alloc

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// ByIPAM gives the pods whose addresses IPAM gave. The others' are kept and counted
// nowhere: to adopt one would announce it as borrowed.
func ByIPAM(pods []model.Endpoint) (out []model.Endpoint) {
	for _, ep := range pods {
		if ep.WithoutIPAM == "" {
			out = append(out, ep)
		}
	}
	return out
}

// LivePods are the addresses of pods that IPAM has to know: not those that
// pods bring, nor those that come from the node's prefixes.
func LivePods(pods []model.Endpoint, podCIDRs []netip.Prefix) []Live {
	var out []Live
	for _, ep := range ByIPAM(pods) {
		attrs := map[string]string{}
		if ep.Pod != "" {
			attrs = map[string]string{"namespace": ep.Namespace, "pod": ep.Pod}
		}
		for _, addr := range ep.Addresses {
			if !slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
				out = append(out, Live{Addr: addr, Handle: model.HandlePrefix + ep.ContainerID, Attrs: attrs})
			}
		}
	}
	return out
}

// OutsidePools are those of a node's prefixes that no pool gives addresses out of.
func OutsidePools(prefixes []netip.Prefix, pools []model.Pool) (out []netip.Prefix) {
	for _, prefix := range prefixes {
		if !slices.ContainsFunc(pools, func(p model.Pool) bool { return !p.Disabled && p.CIDR.Overlaps(prefix) }) {
			out = append(out, prefix)
		}
	}
	return out
}

// UsesPodCIDRs reports whether a pod's address lies in a prefix of the node and in
// no block of its. A prefix within a pool that gives out addresses tells
// nothing: the address may be borrowed from another node's block.
func UsesPodCIDRs(prefixes []netip.Prefix, pools []model.Pool, blocks []model.Block, pods []model.Endpoint) bool {
	outside := OutsidePools(prefixes, pools)
	for _, pod := range ByIPAM(pods) {
		for _, a := range pod.Addresses {
			if slices.ContainsFunc(outside, func(p netip.Prefix) bool { return p.Contains(a) }) &&
				!slices.ContainsFunc(blocks, func(b model.Block) bool { return b.CIDR.Contains(a) }) {
				return true
			}
		}
	}
	return false
}

// Orphans are the handles of pod addresses of which none is in use. Addresses of
// other kinds (tunnels) are not looked at.
func Orphans(allocations []ipam.Allocation, used map[string]bool) []string {
	var kept, candidates []string
	for _, al := range allocations {
		switch {
		case al.Handle == "" || al.Owner["pod"] == "" || used[al.Addr.String()]:
			kept = append(kept, al.Handle)
		case !slices.Contains(candidates, al.Handle):
			candidates = append(candidates, al.Handle)
		}
	}
	// A handle goes as a whole or not at all.
	return slices.DeleteFunc(candidates, func(h string) bool { return slices.Contains(kept, h) })
}
