package nft

import (
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
	from4, from6 := felix.ByFamily(n.Sources)
	to4, to6 := felix.ByFamily(n.Exclude)
	if len(from4) > 0 {
		p.Set("nat-from4", nftables.TypeIPAddr, true, nftw.Ranges(from4))
		p.Set("nat-not4", nftables.TypeIPAddr, true, nftw.Ranges(to4))
	}
	if len(from6) > 0 {
		p.Set("nat-from6", nftables.TypeIP6Addr, true, nftw.Ranges(from6))
		p.Set("nat-not6", nftables.TypeIP6Addr, true, nftw.Ranges(to6))
	}
}

func (p *program) podSets(s felix.SourceCheck) {
	if s.Prefix == "" {
		return
	}
	for _, v4 := range []bool{true, false} {
		var one, net []nftables.SetElement
		for _, pod := range s.Pods {
			for _, src := range pod.Sources {
				if src.Addr().Is4() != v4 {
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
		kind, suffix := nftables.TypeIPAddr, "4"
		if !v4 {
			kind, suffix = nftables.TypeIP6Addr, "6"
		}
		key := nftables.MustConcatSetType(nftables.TypeIFName, kind)
		p.Set("pod-source"+suffix, key, false, one)
		p.Set("pod-source-net"+suffix, key, true, net)
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
	var v4, v6 []nftables.SetElement
	for _, a := range g.Nodes {
		e := nftables.SetElement{Key: a.AsSlice()}
		if a.Is4() {
			v4 = append(v4, e)
		} else {
			v6 = append(v6, e)
		}
	}
	p.Set("nodes4", nftables.TypeIPAddr, false, v4)
	p.Set("nodes6", nftables.TypeIP6Addr, false, v6)
	out4, out6 := felix.ByFamily(g.External)
	if len(out4) > 0 {
		p.Set("external4", nftables.TypeIPAddr, true, nftw.Ranges(out4))
	}
	if len(out6) > 0 {
		p.Set("external6", nftables.TypeIP6Addr, true, nftw.Ranges(out6))
	}
}

// fromForeign matches sources that are neither nodes nor allowed beside them.
func (p *program) fromForeign(g felix.TunnelGuard, v4 bool) []expr.Any {
	suffix := "6"
	out4, external := felix.ByFamily(g.External)
	if v4 {
		suffix, external = "4", out4
	}
	match := slices.Concat(nftw.Source(v4), p.NotIn("nodes"+suffix))
	if len(external) > 0 {
		match = slices.Concat(match, nftw.Source(v4), p.NotIn("external"+suffix))
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
	c.Add(nftw.IsIPv4(), interfaceAndSource(true), p.In("pod-source4"), accept)
	c.Add(nftw.IsIPv6(), interfaceAndSource(false), p.In("pod-source6"), accept)
	c.Add(nftw.IsICMPv6(), nftw.ICMPType(ndRouterAdvert), nftw.Count(), drop)
	c.Add(nftw.IsICMPv6(), nftw.ICMPType(ndRedirect), nftw.Count(), drop)
	c.Add(nftw.IsIPv6(), nftw.Source(false), nftw.Equal(make([]byte, 16)), accept)
	c.Add(nftw.IsIPv6(), interfaceAndSource(false), p.In("pod-local6"), accept)
	c.Add(nftw.IsIPv6(), nftw.Source(false), linkLocal(), seldom(felix.LinkLocalRate), accept)
	c.Add(nftw.IsIPv4(), interfaceAndSource(true), p.In("pod-source-net4"), accept)
	c.Add(nftw.IsIPv6(), interfaceAndSource(false), p.In("pod-source-net6"), accept)
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
		c.Add(nftw.IsIPv4(), p.fromForeign(r.Tunnels, true), drop)
		c.Add(nftw.IsIPv6(), p.fromForeign(r.Tunnels, false), drop)
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
	v4, v6 := felix.ByFamily(g.Ranges)
	if len(v4) > 0 {
		p.Set("services4", nftables.TypeIPAddr, true, nftw.Ranges(v4))
	}
	if len(v6) > 0 {
		p.Set("services6", nftables.TypeIP6Addr, true, nftw.Ranges(v6))
	}
}

func (p *program) services(g felix.ServiceGuard) {
	v4, v6 := felix.ByFamily(g.Ranges)
	if len(v4)+len(v6) == 0 {
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
	if len(v4) > 0 {
		c.Add(from, nftw.IsIPv4(), nftw.Destination(true), p.In("services4"), end)
	}
	if len(v6) > 0 {
		c.Add(from, nftw.IsIPv6(), nftw.Destination(false), p.In("services6"), end)
	}
}

func (p *program) postrouting(r felix.Ruleset) {
	n := r.NAT
	from4, from6 := felix.ByFamily(n.Sources)
	if len(from4)+len(from6) == 0 && !r.Floating.Enabled {
		return
	}
	c := p.Chain("postrouting", nftw.Base(nftables.ChainTypeNAT, nftables.ChainHookPostrouting, felix.PriorityNAT))
	if r.Floating.Enabled {
		p.floatingSelf(c)
	}
	if len(from4) > 0 {
		p.masquerade(c, n, true)
	}
	if len(from6) > 0 {
		p.masquerade(c, n, false)
	}
}

func (p *program) masquerade(c *nftw.Chain, n felix.NAT, v4 bool) {
	proto, suffix := nftw.IsIPv6(), "6"
	if v4 {
		proto, suffix = nftw.IsIPv4(), "4"
	}
	match := slices.Concat(nftw.ToInterface(n.Interface), proto, nftw.Source(v4), p.In("nat-from"+suffix),
		nftw.Destination(v4), p.NotIn("nat-not"+suffix))
	address := netip.Addr{}
	if n.Address.IsValid() && n.Address.Is4() == v4 {
		address = n.Address
	}
	if n.PortMin > 0 {
		for _, l4 := range []byte{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			c.Add(match, nftw.IsL4(l4), translate(address, n.PortMin, n.PortMax))
		}
	}
	c.Add(match, translate(address, 0, 0))
}
