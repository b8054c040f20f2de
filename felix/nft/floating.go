package nft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
)

// floatingSets are maps from a floating address to the pod's, and from a pod
// that talks to itself to the address that it sees then.
func (p *program) floatingSets(f felix.Floating) {
	if !f.Enabled {
		return
	}
	for _, v4 := range []bool{true, false} {
		var to, self []nftables.SetElement
		for _, ip := range f.IPs {
			if ip.Address.Is4() == v4 {
				to = append(to, nftables.SetElement{Key: ip.Address.AsSlice(), Val: ip.Pod.AsSlice()})
			}
		}
		for _, ip := range f.Self() {
			if ip.Address.Is4() == v4 {
				self = append(self, nftables.SetElement{Key: slices.Concat(ip.Pod.AsSlice(), ip.Pod.AsSlice()), Val: ip.Address.AsSlice()})
			}
		}
		kind, suffix := nftables.TypeIPAddr, "4"
		if !v4 {
			kind, suffix = nftables.TypeIP6Addr, "6"
		}
		p.Map("floating"+suffix, kind, kind, to)
		p.Map("floating-self"+suffix, nftables.MustConcatSetType(kind, kind), kind, self)
	}
}

// floating rewrites the destination of what comes in and of what the node itself
// sends.
func (p *program) floating(f felix.Floating) {
	if !f.Enabled {
		return
	}
	for _, at := range []struct {
		name string
		hook *nftables.ChainHook
	}{{"prerouting", nftables.ChainHookPrerouting}, {"output", nftables.ChainHookOutput}} {
		c := p.Chain("floating-"+at.name, nftw.Base(nftables.ChainTypeNAT, at.hook, felix.PriorityFloat))
		c.Add(nftw.IsIPv4(), nftw.Destination(true), p.translateBy("floating4", expr.NATTypeDestNAT, unix.NFPROTO_IPV4))
		c.Add(nftw.IsIPv6(), nftw.Destination(false), p.translateBy("floating6", expr.NATTypeDestNAT, unix.NFPROTO_IPV6))
	}
}

// floatingSelf gives a pod that talks to itself by a floating address answers
// from that address.
func (p *program) floatingSelf(c *nftw.Chain) {
	c.Add(nftw.IsIPv4(), sourceAndDestination(true), p.translateBy("floating-self4", expr.NATTypeSourceNAT, unix.NFPROTO_IPV4))
	c.Add(nftw.IsIPv6(), sourceAndDestination(false), p.translateBy("floating-self6", expr.NATTypeSourceNAT, unix.NFPROTO_IPV6))
}

// sourceAndDestination loads both addresses side by side.
func sourceAndDestination(v4 bool) []expr.Any {
	second := uint32(2) // 16 bytes each
	if v4 {
		second = unix.NFT_REG32_01 // 4 bytes each
	}
	load := nftw.Destination(v4)
	load[0].(*expr.Payload).DestRegister = second
	return append(nftw.Source(v4), load...)
}

// translateBy rewrites an address to what a map has for the first register, and
// does nothing where it has none.
func (p *program) translateBy(name string, kind expr.NATType, family uint32) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: name},
		&expr.NAT{Type: kind, Family: family, RegAddrMin: 1},
	}
}
