package nft

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	chainFromPod   = "from-pod"
	chainToNode    = "from-pod-to-node"
	chainTunnelled = "tunnelled"
)

// program is a Ruleset in the library's words.
type program struct{ *nftw.Table }

// compile turns rules into a program. It is the twin of felix.Ruleset.String:
// the tests load both and compare what the kernel then lists.
func compile(r felix.Ruleset) (*program, error) {
	p := &program{nftw.NewTable(felix.TableName)}
	p.natSets(r.NAT)
	p.podSets(r.SourceCheck)
	p.nodeSets(r.Tunnels)
	p.serviceSets(r.Services)
	p.floatingSets(r.Floating)
	p.fromPod(r)
	p.input(r)
	p.services(r.Services)
	p.floating(r.Floating)
	p.postrouting(r)
	return p, p.Finish(p.Schema())
}

func (p *program) natSets(n felix.NAT) {
	for _, f := range model.Families {
		if from := f.Of(n.Sources); len(from) > 0 {
			p.Set(fmt.Sprintf("nat-from%d", f), nftw.AddrType(f), true, nftw.Ranges(from))
			p.Set(fmt.Sprintf("nat-not%d", f), nftw.AddrType(f), true, nftw.Ranges(f.Of(n.Exclude)))
		}
	}
}

func (p *program) podSets(s felix.SourceCheck) {
	if s.Prefix == "" {
		return
	}
	for _, f := range model.Families {
		var one, net []nftables.SetElement
		for _, pod := range s.Pods {
			for _, src := range pod.Sources {
				if !f.Has(src.Addr()) {
					continue
				}
				if src.IsSingleIP() {
					one = append(one, nftables.SetElement{Key: podKey(pod.Interface, src.Addr())})
				} else {
					net = append(net, nftables.SetElement{
						Key: podKey(pod.Interface, src.Addr()), KeyEnd: podKey(pod.Interface, nftw.Last(src)),
					})
				}
			}
		}
		key := nftables.MustConcatSetType(nftables.TypeIFName, nftw.AddrType(f))
		p.Set(fmt.Sprintf("pod-source%d", f), key, false, one)
		p.Set(fmt.Sprintf("pod-source-net%d", f), key, true, net)
	}
	var speakers, local []nftables.SetElement
	for _, pod := range s.Pods {
		if pod.Local.IsValid() {
			local = append(local, nftables.SetElement{Key: podKey(pod.Interface, pod.Local)})
		}
		if pod.Speaks {
			speakers = append(speakers, nftables.SetElement{Key: nftw.InterfaceName(pod.Interface)})
		}
	}
	p.Set("pod-local6", nftables.MustConcatSetType(nftables.TypeIFName, nftables.TypeIP6Addr), false, local)
	p.Set("pod-speakers", nftables.TypeIFName, false, speakers)
}

func podKey(iface string, a netip.Addr) []byte {
	return append(nftw.InterfaceName(iface), a.AsSlice()...)
}

func (p *program) nodeSets(g felix.TunnelGuard) {
	if !g.Any() {
		return
	}
	for _, f := range model.Families {
		var nodes []nftables.SetElement
		for _, a := range g.Nodes {
			if f.Has(a) {
				nodes = append(nodes, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		p.Set(fmt.Sprintf("nodes%d", f), nftw.AddrType(f), false, nodes)
	}
	for _, f := range model.Families {
		if external := f.Of(g.External); len(external) > 0 {
			p.Set(fmt.Sprintf("external%d", f), nftw.AddrType(f), true, nftw.Ranges(external))
		}
	}
}

// fromForeign matches sources that are neither nodes nor allowed beside them.
func (p *program) fromForeign(g felix.TunnelGuard, f model.Family) []expr.Any {
	match := slices.Concat(nftw.Source(f), p.NotIn(fmt.Sprintf("nodes%d", f)))
	if len(f.Of(g.External)) > 0 {
		match = slices.Concat(match, nftw.Source(f), p.NotIn(fmt.Sprintf("external%d", f)))
	}
	return match
}

func (p *program) fromPod(r felix.Ruleset) {
	s := r.SourceCheck
	if s.Prefix == "" {
		return
	}
	in := p.Chain("prerouting", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookPrerouting, felix.PriorityPods))
	for _, prefix := range s.Prefixes() {
		in.Add(nftw.FromInterface(prefix), nftw.To(expr.VerdictGoto, chainFromPod))
	}
	c := p.Chain(chainFromPod, nil)
	accept, drop := nftw.Verdict(expr.VerdictAccept), nftw.Verdict(expr.VerdictDrop)
	if s.NoVXLAN {
		for _, port := range r.Tunnels.VXLANPorts {
			c.Add(isPort(felix.Port{Protocol: "udp", Port: port}), drop)
		}
	}
	if s.NoIPIP {
		c.Add(isIPIP(), drop)
	}
	c.Add(nftw.IsICMP(), nftw.ICMPType(icmpRedirect), nftw.Count(), drop)
	c.Add(nftw.Is(model.IPv4), interfaceAndSource(model.IPv4), p.In("pod-source4"), accept)
	c.Add(nftw.Is(model.IPv6), interfaceAndSource(model.IPv6), p.In("pod-source6"), accept)
	c.Add(nftw.IsICMPv6(), nftw.ICMPType(ndRouterAdvert), nftw.Count(), drop)
	c.Add(nftw.IsICMPv6(), nftw.ICMPType(ndRedirect), nftw.Count(), drop)
	c.Add(nftw.Is(model.IPv6), nftw.Source(model.IPv6), nftw.Equal(make([]byte, 16)), accept)
	c.Add(nftw.Is(model.IPv6), interfaceAndSource(model.IPv6), p.In("pod-local6"), accept)
	c.Add(nftw.Is(model.IPv6), nftw.Source(model.IPv6), linkLocal(), seldom(felix.LinkLocalRate), accept)
	c.Add(nftw.Is(model.IPv4), interfaceAndSource(model.IPv4), p.In("pod-source-net4"), accept)
	c.Add(nftw.Is(model.IPv6), interfaceAndSource(model.IPv6), p.In("pod-source-net6"), accept)
	c.Add(nftw.Count(), drop)
}

func (p *program) input(r felix.Ruleset) {
	s := r.SourceCheck
	pods := s.Prefix != ""
	if !pods && !r.Tunnels.Any() {
		return
	}
	c := p.Chain("input", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookInput, felix.PriorityFilter))
	for _, port := range r.Tunnels.VXLANPorts {
		c.Add(isPort(felix.Port{Protocol: "udp", Port: port}), nftw.To(expr.VerdictJump, chainTunnelled))
	}
	if r.Tunnels.IPIP {
		c.Add(isIPIP(), nftw.To(expr.VerdictJump, chainTunnelled))
	}
	if pods {
		for _, prefix := range s.Prefixes() {
			c.Add(nftw.FromInterface(prefix), nftw.To(expr.VerdictGoto, chainToNode))
		}
		p.toNode(s)
	}
	if r.Tunnels.Any() {
		c, drop := p.Chain(chainTunnelled, nil), nftw.Verdict(expr.VerdictDrop)
		c.Add(nftw.Is(model.IPv4), p.fromForeign(r.Tunnels, model.IPv4), drop)
		c.Add(nftw.Is(model.IPv6), p.fromForeign(r.Tunnels, model.IPv6), drop)
	}
}

func (p *program) toNode(s felix.SourceCheck) {
	c := p.Chain(chainToNode, nil)
	accept, drop := nftw.Verdict(expr.VerdictAccept), nftw.Verdict(expr.VerdictDrop)
	for _, port := range s.SpeakersPorts() {
		c.Add(isPort(port), nftw.Meta(expr.MetaKeyIIFNAME), p.NotIn("pod-speakers"), nftw.Count(), drop)
	}
	if s.ToHost != model.ActionDrop {
		return
	}
	c.Add(nftw.EstablishedOrRelated(), accept)
	c.Add(nftw.IsICMPv6(), nftw.ICMPTypes(ndRouterSolicit, ndNeighborAdvert), accept)
	for _, port := range s.SpeakersPorts() {
		c.Add(isPort(port), accept)
	}
	c.Add(nftw.Count(), drop)
}

func (p *program) serviceSets(g felix.ServiceGuard) {
	for _, f := range model.Families {
		if ranges := f.Of(g.Ranges); len(ranges) > 0 {
			p.Set(fmt.Sprintf("services%d", f), nftw.AddrType(f), true, nftw.Ranges(ranges))
		}
	}
}

func (p *program) services(g felix.ServiceGuard) {
	if len(g.Ranges) == 0 {
		return
	}
	// A chain of the type nat is passed by the first packet of a connection
	// alone. It cannot reject.
	var c *nftw.Chain
	from, end := forwarded(), nftw.Verdict(expr.VerdictDrop)
	if g.Reject {
		c = p.Chain("forward", nftw.Base(nftables.ChainTypeFilter, nftables.ChainHookForward, felix.PriorityFilter))
		c.Add(nftw.EstablishedOrRelated(), nftw.Verdict(expr.VerdictAccept))
		from, end = nil, []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}
	} else {
		c = p.Chain("services", nftw.Base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, felix.PriorityServices))
	}
	for _, f := range model.Families {
		if len(f.Of(g.Ranges)) > 0 {
			c.Add(from, nftw.Is(f), nftw.Destination(f), p.In(fmt.Sprintf("services%d", f)), end)
		}
	}
}

func (p *program) postrouting(r felix.Ruleset) {
	n := r.NAT
	if len(n.Sources) == 0 && !r.Floating.Enabled {
		return
	}
	c := p.Chain("postrouting", nftw.Base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, felix.PriorityNAT))
	if r.Floating.Enabled {
		p.floatingSelf(c)
	}
	for _, f := range model.Families {
		if len(f.Of(n.Sources)) > 0 {
			p.masquerade(c, n, f)
		}
	}
}

func (p *program) masquerade(c *nftw.Chain, n felix.NAT, f model.Family) {
	match := slices.Concat(nftw.ToInterface(n.Interface), nftw.Is(f), nftw.Source(f), p.In(fmt.Sprintf("nat-from%d", f)),
		nftw.Destination(f), p.NotIn(fmt.Sprintf("nat-not%d", f)))
	address := netip.Addr{}
	if n.Address.IsValid() && f.Has(n.Address) {
		address = n.Address
	}
	if n.PortMin > 0 {
		for _, l4 := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.Add(match, nftw.IsL4(l4), translate(address, n.PortMin, n.PortMax))
		}
	}
	c.Add(match, translate(address, 0, 0))
}
