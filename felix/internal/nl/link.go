package nl

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/pkg/model"
)

// ParseLink reads the body of an RTM_NEWLINK, at least a whole ifinfomsg long.
func ParseLink(b []byte) model.Link {
	flags := Uint32(b[8:])
	l := model.Link{
		Index:   int(Uint32(b[4:])),
		AdminUp: flags&unix.IFF_UP != 0,
		Up:      flags&unix.IFF_UP != 0 && flags&unix.IFF_RUNNING != 0,
	}
	Attrs(b[unix.SizeofIfInfomsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			l.Name = text(data)
		case unix.IFLA_IFALIAS:
			l.Alias = text(data)
		case unix.IFLA_MTU:
			l.MTU = int(Uint32(data))
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(data).String()
		case unix.IFLA_LINKINFO:
			Attrs(data, func(kind uint16, data []byte) {
				switch kind {
				case unix.IFLA_INFO_KIND:
					l.Kind = text(data)
				case unix.IFLA_INFO_DATA: // after the kind
					l.VXLANPort = vxlanPort(l.Kind, data)
				}
			})
		}
	})
	return l
}

func vxlanPort(kind string, b []byte) (port int) {
	if kind != "vxlan" {
		return 0
	}
	Attrs(b, func(kind uint16, data []byte) {
		if kind == unix.IFLA_VXLAN_PORT && len(data) >= 2 {
			port = int(binary.BigEndian.Uint16(data))
		}
	})
	return port
}

func text(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// ParseAddress reads the body of an RTM_NEWADDR, at least a whole ifaddrmsg
// long: the own address with the length of its subnet.
func ParseAddress(b []byte) netip.Prefix {
	var local, address netip.Addr
	Attrs(b[unix.SizeofIfAddrmsg:], func(kind uint16, data []byte) {
		switch kind {
		case unix.IFA_LOCAL: // the own end of a point-to-point link
			local, _ = netip.AddrFromSlice(data)
		case unix.IFA_ADDRESS:
			address, _ = netip.AddrFromSlice(data)
		}
	})
	if !local.IsValid() {
		local = address
	}
	return netip.PrefixFrom(local, int(b[1]))
}
