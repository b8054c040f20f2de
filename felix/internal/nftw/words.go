package nftw

import (
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/muslin-net/muslin/pkg/model"
	"golang.org/x/sys/unix"
)

// The small words that rules are made of, each as `nft` itself compiles it.

func Meta(key expr.MetaKey) []expr.Any { return []expr.Any{&expr.Meta{Key: key, Register: 1}} }

func Equal(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data}}
}

// Protocol is the kernel's number of a family.
func Protocol(f model.Family) byte {
	return model.OfFamily[byte](f, unix.NFPROTO_IPV4, unix.NFPROTO_IPV6)
}

func Is(f model.Family) []expr.Any {
	return append(Meta(expr.MetaKeyNFPROTO), Equal([]byte{Protocol(f)})...)
}

// AddrType is the type of a family's addresses.
func AddrType(f model.Family) nftables.SetDatatype {
	return model.OfFamily(f, nftables.TypeIPAddr, nftables.TypeIP6Addr)
}

func IsL4(proto byte) []expr.Any { return append(Meta(expr.MetaKeyL4PROTO), Equal([]byte{proto})...) }

// fromInterface matches interfaces whose name starts with prefix.
func FromInterface(prefix string) []expr.Any {
	return append(Meta(expr.MetaKeyIIFNAME), Equal([]byte(prefix))...)
}

// toInterface matches the interface a packet leaves by: a name, or the start of
// one before a "*"; empty matches all.
func ToInterface(name string) []expr.Any {
	if name == "" {
		return nil
	}
	pattern, wild := strings.CutSuffix(name, "*")
	data := []byte(pattern)
	if !wild {
		data = InterfaceName(name)
	}
	return append(Meta(expr.MetaKeyOIFNAME), Equal(data)...)
}

func Payload(base expr.PayloadBase, offset, length uint32) []expr.Any {
	return []expr.Any{&expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}}
}

func Source(f model.Family) []expr.Any {
	if f == model.IPv4 {
		return Payload(expr.PayloadBaseNetworkHeader, 12, 4)
	}
	return Payload(expr.PayloadBaseNetworkHeader, 8, 16)
}

func Destination(f model.Family) []expr.Any {
	if f == model.IPv4 {
		return Payload(expr.PayloadBaseNetworkHeader, 16, 4)
	}
	return Payload(expr.PayloadBaseNetworkHeader, 24, 16)
}

func IsICMP() []expr.Any   { return append(Is(model.IPv4), IsL4(unix.IPPROTO_ICMP)...) }
func IsICMPv6() []expr.Any { return append(Is(model.IPv6), IsL4(unix.IPPROTO_ICMPV6)...) }

// icmpType matches a type of whichever ICMP it is.
func ICMPType(t byte) []expr.Any {
	return append(Payload(expr.PayloadBaseTransportHeader, 0, 1), Equal([]byte{t})...)
}

func ICMPTypes(low, high byte) []expr.Any {
	return append(Payload(expr.PayloadBaseTransportHeader, 0, 1),
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{low}}, &expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{high}})
}

func Count() []expr.Any { return []expr.Any{&expr.Counter{}} }

func To(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func EstablishedOrRelated() []expr.Any {
	return State(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)
}

// State matches packets whose state, as conntrack has it, is one of some.
func State(bits uint32) []expr.Any { return flags(expr.CtKeySTATE, bits) }

// Expected matches packets of connections that a helper expected because of another one.
func Expected() []expr.Any {
	const ipsExpected = 1 // of linux/netfilter/nf_conntrack_common.h
	return flags(expr.CtKeySTATUS, ipsExpected)
}

func flags(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// Reply matches packets that go where the first one of their connection came from.
func Reply() []expr.Any {
	const ipCtDirReply = 1
	return append([]expr.Any{&expr.Ct{Register: 1, Key: expr.CtKeyDIRECTION}}, Equal([]byte{ipCtDirReply})...)
}

// ConnectionMark matches connections whose mark has some bits in a mask.
func ConnectionMark(bits, mask uint32) []expr.Any {
	return append(connectionMark(mask, 0), Equal(binaryutil.NativeEndian.PutUint32(bits))...)
}

// SetConnectionMark gives a connection's mark these bits in a mask, and leaves the others.
func SetConnectionMark(bits, mask uint32) []expr.Any {
	return append(connectionMark(^mask, bits), &expr.Ct{Register: 1, Key: expr.CtKeyMARK, SourceRegister: true})
}

func connectionMark(and, xor uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeyMARK},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(and), Xor: binaryutil.NativeEndian.PutUint32(xor)},
	}
}

func Verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

// In matches what is in a set by the first register; NotIn what is not.
func (t *Table) In(name string) []expr.Any { return t.Lookup(name, 1, false) }

// NotIn is the opposite of In.
func (t *Table) NotIn(name string) []expr.Any { return t.Lookup(name, 1, true) }

// Lookup matches by any register. The set's name is all that names it: an id, which
// it has as long as it is being made, would make two rules of one.
func (t *Table) Lookup(name string, register uint32, invert bool) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: register, SetName: name, Invert: invert}}
}

// Dispatch goes where the map of verdicts leads by the first register; it does
// nothing where that has no element.
func (t *Table) Dispatch(name string) []expr.Any {
	return []expr.Any{&expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: name}}
}

// Differs is the opposite of Equal.
func Differs(data []byte) []expr.Any {
	return []expr.Any{&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: data}}
}

// Invalid matches packets of no connection that could be one's.
func Invalid() []expr.Any { return State(expr.CtStateBitINVALID) }

// AtMost matches so many packets a second, and a burst of some before.
func AtMost(rate uint64, burst uint32) []expr.Any {
	return []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst}}
}

// Log writes a line of the kernel's log, behind a prefix of at most MaxPrefix bytes.
func Log(prefix string) []expr.Any {
	return []expr.Any{&expr.Log{Key: 1 << unix.NFTA_LOG_PREFIX, Data: []byte(prefix)}}
}

// LogTo hands the first bytes of a packet to whoever has bound the nflog group.
func LogTo(group uint16, bytes uint32, prefix string) []expr.Any {
	return []expr.Any{&expr.Log{
		Key:   1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_SNAPLEN | 1<<unix.NFTA_LOG_PREFIX,
		Group: group, Snaplen: bytes, Data: []byte(prefix),
	}}
}

// MaxPrefix is how many bytes the prefix of a log has at most (NF_LOG_PREFIXLEN).
const MaxPrefix = 127

// FirstWord is the register of 4 bytes that AddressProtocolPort loads first.
const FirstWord = unix.NFT_REG32_00

// AddressProtocolPort loads an address, the protocol and the port of one end side by
// side, from FirstWord on.
func AddressProtocolPort(f model.Family, source bool) []expr.Any {
	words, offset, port := uint32(4), uint32(24), uint32(2)
	switch {
	case f == model.IPv4 && source:
		words, offset, port = 1, 12, 0
	case f == model.IPv4:
		words, offset = 1, 16
	case source:
		offset, port = 8, 0
	}
	return []expr.Any{
		&expr.Payload{DestRegister: FirstWord, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4 * words},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: FirstWord + words},
		&expr.Payload{DestRegister: FirstWord + words + 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
	}
}
