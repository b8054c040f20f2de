package app

import (
	"net/netip"
	"slices"
	"sync/atomic"

	"github.com/muslin-net/muslin/cmd/agent/cniserver"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/task"
)

// podCIDRs gives out addresses of node.spec.podCIDRs. Most clusters have such
// prefixes and use pools all the same, so they count from the first pod on that
// has an address of theirs, or asks for one: then the node announces them.
type podCIDRs struct {
	*ipam.PodCIDRs
	used    atomic.Bool
	inUse   task.Cell[[]netip.Prefix]
	outside atomic.Pointer[[]netip.Prefix] // those that no pool gives addresses out of
	changed func()                         // tells IPAM to look again
}

// foreign are the prefixes whose addresses are not IPAM's to store.
func (p *podCIDRs) foreign() []netip.Prefix {
	if p.used.Load() {
		return p.Prefixes()
	}
	if outside := p.outside.Load(); outside != nil {
		return *outside
	}
	return nil
}

// given tells which of the node's prefixes pools give addresses out of. The rest
// is not IPAM's, whether a pod has an address of it yet or not.
func (p *podCIDRs) given(prefixes []netip.Prefix, pools []model.Pool) {
	outside := alloc.OutsidePools(prefixes, pools)
	was := p.outside.Swap(&outside)
	if was == nil && len(outside) > 0 || was != nil && !slices.Equal(*was, outside) {
		p.changed()
	}
}

func newPodCIDRs() *podCIDRs { return &podCIDRs{PodCIDRs: ipam.NewPodCIDRs(), changed: func() {}} }

func (p *podCIDRs) assign(r cniserver.AddressRequest) ([]netip.Addr, error) {
	if len(r.Addresses) > 0 {
		return nil, &ipam.Error{
			Code: ipam.CodeBadRequest, Object: model.Ref{Kind: "Pod", Namespace: r.Attributes["namespace"], Name: r.Attributes["pod"]},
			Detail: "it asks for a certain address, and the node's prefixes give any", Hint: "use an IPPool for pods with an address of their own",
		}
	}
	var families []model.Family
	if r.IPv4 == cniserver.NeedYes {
		families = append(families, model.IPv4)
	}
	if r.IPv6 == cniserver.NeedYes {
		families = append(families, model.IPv6)
	}
	got, err := p.Assign(r.Handle, families)
	if err == nil {
		p.use()
	}
	return got, err
}

func (p *podCIDRs) use() {
	first := !p.used.Swap(true)
	p.inUse.Set(p.Prefixes())
	if first {
		p.changed()
	}
}

// learnPodCIDRs takes the node's prefixes over, and sees by the pods of an
// earlier process whether they are in use.
func (a *agent) learnPodCIDRs(self model.Node, pools []model.Pool) {
	a.podCIDRs.SetPrefixes(self.Name, self.PodCIDRs)
	if a.podCIDRs.used.Load() {
		a.podCIDRs.use()
	}
	a.podCIDRs.given(self.PodCIDRs, pools)
	select {
	case <-a.alloc.Ready():
	default:
		return // its blocks are not known yet
	}
	if alloc.UsesPodCIDRs(self.PodCIDRs, pools, a.alloc.Blocks(), a.endpoints.List()) {
		a.podCIDRs.use()
	}
}

// asBlocks are prefixes in use, which data plane and BGP treat as blocks.
func asBlocks(prefixes []netip.Prefix, self model.NodeName) (out []model.Block) {
	for _, cidr := range prefixes {
		out = append(out, model.Block{CIDR: cidr, Node: self, State: model.BlockConfirmed})
	}
	return out
}
