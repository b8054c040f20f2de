package nft

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
)

// The small words that rules are made of, each as `nft` itself compiles it.

func meta(key expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: key, Register: 1}} }

func equal(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

func isIPv4() []expr.Any {
	return append(meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV4})...)
}
func isIPv6() []expr.Any {
	return append(meta(expr.MetaKeyNFPROTO), equal([]byte{unix.NFPROTO_IPV6})...)
}

func isL4(proto byte) []expr.Any { return append(meta(expr.MetaKeyL4PROTO), equal([]byte{proto})...) }

// fromInterface matches interfaces whose name starts with prefix.
func fromInterface(prefix string) []expr.Any {
	return append(meta(expr.MetaKeyIIFNAME), equal([]byte(prefix))...)
}

// toInterface matches the interface a packet leaves by: a name, or the start of
// one before a "*"; empty matches all.
func toInterface(name string) []expr.Any {
	if name == "" {
		return nil
	}
	pattern, wild := strings.CutSuffix(name, "*")
	data := []byte(pattern)
	if !wild {
		data = name16(name)
	}
	return append(meta(expr.MetaKeyOIFNAME), equal(data)...)
}

func payload(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func source(v4 bool) []expr.Any {
	if v4 {
		return payload(expr.PayloadBaseNetworkHeader, 12, 4)
	}
	return payload(expr.PayloadBaseNetworkHeader, 8, 16)
}

func destination(v4 bool) []expr.Any {
	if v4 {
		return payload(expr.PayloadBaseNetworkHeader, 16, 4)
	}
	return payload(expr.PayloadBaseNetworkHeader, 24, 16)
}

// interfaceAndSource loads the interface's name into the first register (16
// bytes) and the source address into the second.
func interfaceAndSource(v4 bool) []expr.Any {
	load := source(v4)
	load[0].(*expr.Payload).DestRegister = 2
	return append(meta(expr.MetaKeyIIFNAME), load...)
}

// linkLocal matches fe80::/10 in the first register.
func linkLocal() []expr.Any {
	mask, value := make([]byte, 16), make([]byte, 16)
	mask[0], mask[1] = 0xff, 0xc0
	value[0], value[1] = 0xfe, 0x80
	return append([]expr.Any{&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 16, Mask: mask, Xor: make([]byte, 16)}},
		equal(value)...)
}

// isPort matches a destination port.
func isPort(p felix.Port) []expr.Any {
	proto := byte(unix.IPPROTO_UDP)
	if p.Protocol == "tcp" {
		proto = unix.IPPROTO_TCP
	}
	return slices.Concat(isL4(proto), payload(expr.PayloadBaseTransportHeader, 2, 2),
		equal(binaryutil.BigEndian.PutUint16(uint16(p.Port))))
}

// Types of ICMP (RFC 792) and of ICMPv6 (RFC 4861 section 4).
const (
	icmpRedirect     = 5
	ndRouterSolicit  = 133
	ndRouterAdvert   = 134
	ndNeighborAdvert = 136
	ndRedirect       = 137
)

func isICMP() []expr.Any   { return append(isIPv4(), isL4(unix.IPPROTO_ICMP)...) }
func isICMPv6() []expr.Any { return append(isIPv6(), isL4(unix.IPPROTO_ICMPV6)...) }

// icmpType matches a type of whichever ICMP it is.
func icmpType(t byte) []expr.Any {
	return append(payload(expr.PayloadBaseTransportHeader, 0, 1), equal([]byte{t})...)
}

func icmpTypes(low, high byte) []expr.Any {
	return append(payload(expr.PayloadBaseTransportHeader, 0, 1),
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{low}}, &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{high}})
}

func count() []expr.Any { return []expr.Any{&expr.Counter{}} }

func isIPIP() []expr.Any {
	return slices.Concat(isIPv4(), payload(expr.PayloadBaseNetworkHeader, 9, 1), equal([]byte{unix.IPPROTO_IPIP}))
}

func to(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func establishedOrRelated() []expr.Any {
	bits := binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// forwarded matches packets that came in by some interface.
func forwarded() []expr.Any {
	return append(meta(expr.MetaKeyIIF), &expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
}

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func (p *program) lookup(name string, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, SetName: name, SetID: p.find(name).ID, Invert: invert}}
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
			return append(out, masqueradeTo(minReg, maxReg))
		}
		return append(out, &expr.Masq{FullyRandom: true})
	}
	family := uint32(unix.NFPROTO_IPV4)
	if address.Is6() {
		family = unix.NFPROTO_IPV6
	}
	return append(out, &expr.NAT{
		Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: 1,
		RegProtoMin: minReg, RegProtoMax: maxReg, FullyRandom: true, Specified: low > 0,
	})
}
