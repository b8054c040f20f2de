package nft

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/pkg/model"
)

// floatingSets are maps from a floating address to the pod's, and from a pod
// that talks to itself to the address that it sees then.
func (p *program) floatingSets(fl felix.Floating) {
	if !fl.Enabled {
		return
	}
	for _, f := range model.Families {
		var to, self []nftables.SetElement
		for _, ip := range fl.IPs {
			if f.Has(ip.Address) {
				to = append(to, nftables.SetElement{Key: ip.Address.AsSlice(), Val: ip.Pod.AsSlice()})
			}
		}
		for _, ip := range fl.Self() {
			if f.Has(ip.Address) {
				self = append(self, nftables.SetElement{Key: slices.Concat(ip.Pod.AsSlice(), ip.Pod.AsSlice()), Val: ip.Address.AsSlice()})
			}
		}
		kind := nftw.AddrType(f)
		p.Map(fmt.Sprintf("floating%d", f), kind, kind, to)
		p.Map(fmt.Sprintf("floating-self%d", f), nftables.MustConcatSetType(kind, kind), kind, self)
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
		for _, f := range model.Families {
			c.Add(nftw.Is(f), nftw.Destination(f), p.translateBy("floating", expr.NATTypeDestNAT, f))
		}
	}
}

// floatingSelf gives a pod that talks to itself by a floating address answers
// from that address.
func (p *program) floatingSelf(c *nftw.Chain) {
	for _, f := range model.Families {
		c.Add(nftw.Is(f), sourceAndDestination(f), p.translateBy("floating-self", expr.NATTypeSourceNAT, f))
	}
}

// sourceAndDestination loads both addresses side by side.
func sourceAndDestination(f model.Family) []expr.Any {
	load := nftw.Destination(f)
	load[0].(*expr.Payload).DestRegister = model.OfFamily[uint32](f, unix.NFT_REG32_01, 2) // 4 bytes each, 16 bytes each
	return append(nftw.Source(f), load...)
}

// translateBy rewrites an address to what the family's map has for the first register, and
// does nothing where it has none.
func (p *program) translateBy(name string, kind expr.NATType, f model.Family) []expr.Any {
	return []expr.Any{
		&expr.Lookup{SourceRegister: 1, DestRegister: 1, IsDestRegSet: true, SetName: fmt.Sprintf("%s%d", name, f)},
		&expr.NAT{Type: kind, Family: uint32(nftw.Protocol(f)), RegAddrMin: 1},
	}
}
