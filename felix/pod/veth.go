package pod

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

const vethInfoPeer = 1 // VETH_INFO_PEER

// Indexes of per-interface IPv4 settings (IPV4_DEVCONF_*, linux/ip.h).
const (
	confForwarding    = 1
	confProxyARP      = 3
	confSendRedirects = 6
)

const addrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE

func getLink(c *nl.Conn, name string) (model.Link, error) {
	b, err := c.Get(unix.RTM_GETLINK, func(b []byte) []byte {
		b = append(b, make([]byte, unix.SizeofIfInfomsg)...)
		return nl.AppendAttr(b, unix.IFLA_IFNAME, append([]byte(name), 0))
	})
	if err != nil {
		return model.Link{}, fmt.Errorf("get link %s: %w", name, err)
	}
	return nl.ParseLink(b), nil
}

func ifinfo(b []byte, index int, flags, change uint32) []byte {
	b = append(b, unix.AF_UNSPEC, 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, uint32(index))
	b = binary.NativeEndian.AppendUint32(b, flags)
	return binary.NativeEndian.AppendUint32(b, change)
}

// create makes the pair in one request, the peer straight in the pod's
// namespace under its own name: there is no moment in which anybody sees it
// elsewhere or under another one.
func (p *Plugger) create(s Spec, inside *podSide) error {
	end := func(b []byte, name string, mac net.HardwareAddr) []byte {
		b = nl.AppendAttr(b, unix.IFLA_IFNAME, append([]byte(name), 0))
		b = nl.AppendAttr(b, unix.IFLA_ADDRESS, mac)
		if s.MTU > 0 {
			b = nl.AppendAttr32(b, unix.IFLA_MTU, uint32(s.MTU))
		}
		if s.Queues > 0 {
			b = nl.AppendAttr32(b, unix.IFLA_NUM_TX_QUEUES, uint32(s.Queues))
			b = nl.AppendAttr32(b, unix.IFLA_NUM_RX_QUEUES, uint32(s.Queues))
		}
		return b
	}
	var batch nl.Batch
	batch.Add(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(b []byte) []byte {
		b = end(ifinfo(b, 0, 0, 0), s.HostInterface, HostMAC)
		b, info := nl.BeginNested(b, unix.IFLA_LINKINFO)
		b = nl.AppendAttr(b, unix.IFLA_INFO_KIND, []byte("veth"))
		b, data := nl.BeginNested(b, unix.IFLA_INFO_DATA)
		b, peer := nl.BeginNested(b, vethInfoPeer)
		b = end(ifinfo(b, 0, 0, 0), s.Interface, s.mac())
		b = nl.AppendAttr32(b, unix.IFLA_NET_NS_FD, uint32(inside.ns.FD()))
		return nl.EndNested(nl.EndNested(nl.EndNested(b, peer), data), info)
	})
	return p.conn.Each(&batch, func(_ int, err error) error {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("create links %s and %s: one of the names is taken: %w", s.HostInterface, s.Interface, err)
		}
		return fmt.Errorf("create links %s and %s: %w", s.HostInterface, s.Interface, err)
	})
}

// requests is a batch whose refusals have names.
type requests struct {
	nl.Batch
	names []string
}

func (r *requests) add(name string, kind, flags uint16, build func([]byte) []byte) {
	r.names = append(r.names, name)
	r.Add(kind, flags, build)
}

func (r *requests) do(c *nl.Conn) error {
	return c.Each(&r.Batch, func(i int, err error) error { return fmt.Errorf("%s: %w", r.names[i], err) })
}

const replace = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

func (r *requests) address(index int, a netip.Addr) {
	r.add("add address "+a.String(), unix.RTM_NEWADDR, replace, func(b []byte) []byte {
		// No duplicate detection: the address is known to be this pod's, and
		// it would be of no use for a second.
		flags, scope := byte(unix.IFA_F_PERMANENT), byte(unix.RT_SCOPE_UNIVERSE)
		if a.Is6() {
			flags |= unix.IFA_F_NODAD
		}
		bits := a.BitLen()
		if a.IsLinkLocalUnicast() {
			bits, scope = 64, unix.RT_SCOPE_LINK
		}
		b = append(b, family(a), byte(bits), flags, scope)
		b = binary.NativeEndian.AppendUint32(b, uint32(index))
		b = nl.AppendAttr(b, unix.IFA_LOCAL, a.AsSlice())
		return nl.AppendAttr(b, unix.IFA_ADDRESS, a.AsSlice())
	})
}

func (r *requests) route(index int, p netip.Prefix, gateway netip.Addr) {
	r.add("add route "+p.String(), unix.RTM_NEWROUTE, replace, func(b []byte) []byte {
		scope := byte(unix.RT_SCOPE_UNIVERSE)
		if !gateway.IsValid() && p.Addr().Is4() {
			scope = unix.RT_SCOPE_LINK
		}
		b = append(b, family(p.Addr()), byte(p.Bits()), 0, 0,
			unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, scope, unix.RTN_UNICAST, 0, 0, 0, 0)
		if p.Bits() > 0 {
			b = nl.AppendAttr(b, unix.RTA_DST, p.Addr().AsSlice())
		}
		if gateway.IsValid() {
			b = nl.AppendAttr(b, unix.RTA_GATEWAY, gateway.AsSlice())
		}
		return nl.AppendAttr32(b, unix.RTA_OIF, uint32(index))
	})
}

// neighbour saves the first packet a question: the gateway's hardware address
// never changes.
func (r *requests) neighbour(index int, a netip.Addr, mac net.HardwareAddr) {
	r.add("add neighbour "+a.String(), unix.RTM_NEWNEIGH, replace, func(b []byte) []byte {
		b = append(b, family(a), 0, 0, 0)
		b = binary.NativeEndian.AppendUint32(b, uint32(index))
		b = binary.NativeEndian.AppendUint16(b, unix.NUD_PERMANENT)
		b = append(b, 0, 0)
		b = nl.AppendAttr(b, unix.NDA_DST, a.AsSlice())
		return nl.AppendAttr(b, unix.NDA_LLADDR, mac)
	})
}

func (r *requests) up(index int) {
	r.add("set link up", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		return ifinfo(b, index, unix.IFF_UP, unix.IFF_UP)
	})
}

// settings sets per-interface IPv4 settings.
func (r *requests) settings(index int, conf map[uint16]uint32) {
	r.add("set IPv4 settings of the link", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		b = ifinfo(b, index, 0, 0)
		b, spec := nl.BeginNested(b, unix.IFLA_AF_SPEC)
		b, inet := nl.BeginNested(b, unix.AF_INET)
		b, all := nl.BeginNested(b, unix.IFLA_INET_CONF)
		for k := uint16(0); k < 64; k++ {
			if v, ok := conf[k]; ok {
				b = nl.AppendAttr32(b, k, v)
			}
		}
		return nl.EndNested(nl.EndNested(nl.EndNested(b, all), inet), spec)
	})
}

// noAutoLinkLocal keeps the kernel from making a link-local address of its own,
// which would be in doubt for a second: ours is added instead.
func (r *requests) noAutoLinkLocal(index int) {
	r.add("set address mode of the link", unix.RTM_NEWLINK, 0, func(b []byte) []byte {
		b = ifinfo(b, index, 0, 0)
		b, spec := nl.BeginNested(b, unix.IFLA_AF_SPEC)
		b, inet6 := nl.BeginNested(b, unix.AF_INET6)
		b = nl.AppendAttr(b, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{addrGenModeNone})
		return nl.EndNested(nl.EndNested(b, inet6), spec)
	})
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// linkLocal is the EUI-64 address of mac (RFC 4291 appendix A).
func linkLocal(mac net.HardwareAddr) netip.Addr {
	return netip.AddrFrom16([16]byte{
		0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5],
	})
}
