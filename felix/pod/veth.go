package pod

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
)

const vethInfoPeer = 1 // VETH_INFO_PEER

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
		b = end(nl.LinkHeader(b, 0, 0, 0), s.HostInterface, HostMAC)
		b, info := nl.BeginNested(b, unix.IFLA_LINKINFO)
		b = nl.AppendAttr(b, unix.IFLA_INFO_KIND, []byte("veth"))
		b, data := nl.BeginNested(b, unix.IFLA_INFO_DATA)
		b, peer := nl.BeginNested(b, vethInfoPeer)
		b = end(nl.LinkHeader(b, 0, 0, 0), s.Interface, s.mac())
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

func addRoute(r *nl.Requests, index int, p netip.Prefix, gateway netip.Addr) {
	r.Name("add route "+p.String(), unix.RTM_NEWROUTE, nl.Replace, func(b []byte) []byte {
		scope := byte(unix.RT_SCOPE_UNIVERSE)
		if !gateway.IsValid() && p.Addr().Is4() {
			scope = unix.RT_SCOPE_LINK
		}
		b = append(b, nl.Family(p.Addr()), byte(p.Bits()), 0, 0,
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
