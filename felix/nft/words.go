package nft

import (
	"net/netip"
	"slices"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/pkg/model"
)

// The words that are this table's own, each as `nft` itself compiles it.

// Types of ICMP (RFC 792) and of ICMPv6 (RFC 4861 section 4).
const (
	icmpRedirect     = 5
	ndRouterSolicit  = 133
	ndRouterAdvert   = 134
	ndNeighborAdvert = 136
	ndRedirect       = 137
)

// interfaceAndSource loads the interface's name into the first register (16
// bytes) and the source address into the second.
func interfaceAndSource(f model.Family) []expr.Any {
	load := nftw.Source(f)
	load[0].(*expr.Payload).DestRegister = 2
	return append(nftw.Meta(expr.MetaKeyIIFNAME), load...)
}

// linkLocal matches fe80::/10 in the first register.
func linkLocal() []expr.Any {
	mask, value := make([]byte, 16), make([]byte, 16)
	mask[0], mask[1] = 0xff, 0xc0
	value[0], value[1] = 0xfe, 0x80
	return append([]expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)}},
		nftw.Equal(value)...)
}

// seldom matches so many packets a second.
func seldom(rate int) []expr.Any {
	return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(rate), Unit: expr.LimitTimeSecond, Burst: uint32(rate)}}
}

// isPort matches a destination port.
func isPort(p felix.Port) []expr.Any {
	proto := byte(unix.IPPROTO_UDP)
	if p.Protocol == "tcp" {
		proto = unix.IPPROTO_TCP
	}
	return slices.Concat(nftw.IsL4(proto), nftw.Payload(expr.PayloadBaseTransportHeader, 2, 2),
		nftw.Equal(binaryutil.BigEndian.PutUint16(uint16(p.Port))))
}

func isIPIP() []expr.Any {
	return slices.Concat(nftw.Is(model.IPv4), nftw.Payload(expr.PayloadBaseNetworkHeader, 9, 1), nftw.Equal([]byte{unix.IPPROTO_IPIP}))
}

// forwarded matches packets that came in by some interface.
func forwarded() []expr.Any {
	return append(nftw.Meta(expr.MetaKeyIIF), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
}

// translate masquerades, or sets the source to address when it is valid, within
// the ports from low to high when they are set.
func translate(address netip.Addr, low, high int) []expr.Any {
	var out []expr.Any
	immediate := func(register uint32, data []byte) {
		out = append(out, &expr.Immediate{Register: register, Data: data})
	}
	var minReg, maxReg uint32
	if address.IsValid() {
		immediate(1, address.AsSlice())
	}
	if low > 0 {
		minReg, maxReg = 2, 3
		if !address.IsValid() {
			minReg, maxReg = 1, 2
		}
		immediate(minReg, binaryutil.BigEndian.PutUint16(uint16(low)))
		immediate(maxReg, binaryutil.BigEndian.PutUint16(uint16(high)))
	}
	if !address.IsValid() {
		if low > 0 {
			return append(out, nftw.MasqueradeTo(minReg, maxReg))
		}
		return append(out, &expr.Masq{FullyRandom: true})
	}
	return append(out, &expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: uint32(nftw.Protocol(model.FamilyOf(address))), RegAddrMin: 1,
		RegProtoMin: minReg, RegProtoMax: maxReg, FullyRandom: true, Specified: low > 0,
	})
}
