package policynft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

// More attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctaTupleProto  = 2
	protoNumber    = 1 // CTA_PROTO_NUM
	protoSource    = 2 // CTA_PROTO_SRC_PORT
	protoICMPType  = 5
	protoICMPCode  = 6
	protoICMP6Type = 8
	protoICMP6Code = 9
)

// Flow is a connection that the kernel tracks, by its first packet as it was judged:
// behind what a service stands for.
type Flow struct {
	Source, Destination netip.AddrPort
	Protocol            uint8
	ICMPType, ICMPCode  uint8
}

// Flows gives the connections that one of some addresses opened or answers, at most
// so many of each IP version, in no order.
func (s *Sink) Flows(of map[netip.Addr]bool, most int) ([]Flow, error) {
	conn, err := nl.Dial(s.Namespace(), unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	var out []Flow
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		begin := len(out)
		err := conn.Dump(nl.EndMessage(request(family), 0), func() { out = out[:begin] }, func(m nl.Message) {
			if f, ok := flowOf(m); ok && len(out)-begin < most && (of[f.Source.Addr()] || of[f.Destination.Addr()]) {
				out = append(out, f)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("list connections: %w", err)
		}
	}
	return out, nil
}

// flowOf reads a connection: who asks is in the one tuple, who answers in the other.
func flowOf(m nl.Message) (f Flow, ok bool) {
	if len(m.Data) < nfgenmsg {
		return f, false
	}
	var asks, answers tuple
	nl.Attrs(m.Data[nfgenmsg:], func(kind uint16, data []byte) {
		switch kind {
		case ctaTupleOrig:
			asks = tupleOf(data)
		case ctaTupleReply:
			answers = tupleOf(data)
		}
	})
	f = Flow{
		Source:      netip.AddrPortFrom(asks.source, asks.sourcePort),
		Destination: netip.AddrPortFrom(answers.source, answers.sourcePort),
		Protocol:    asks.protocol, ICMPType: asks.icmpType, ICMPCode: asks.icmpCode,
	}
	return f, f.Source.IsValid() && f.Destination.IsValid()
}

// tuple is one direction of a connection.
type tuple struct {
	source             netip.Addr
	protocol           uint8
	sourcePort         uint16
	icmpType, icmpCode uint8
}

func tupleOf(data []byte) tuple {
	out := tuple{source: sourceOf(data)}
	nl.Attrs(data, func(kind uint16, proto []byte) {
		if kind != ctaTupleProto {
			return
		}
		nl.Attrs(proto, func(kind uint16, v []byte) {
			switch {
			case kind == protoSource && len(v) >= 2:
				out.sourcePort = binary.BigEndian.Uint16(v)
			case len(v) == 0:
			case kind == protoNumber:
				out.protocol = v[0]
			case kind == protoICMPType, kind == protoICMP6Type:
				out.icmpType = v[0]
			case kind == protoICMPCode, kind == protoICMP6Code:
				out.icmpCode = v[0]
			}
		})
	})
	return out
}
