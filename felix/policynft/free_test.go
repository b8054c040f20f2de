package policynft

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
)

// sends has a namespace send a packet of UDP, from an address that need not be its own.
func sends(t *testing.T, ns *nstest.NS, from, to netip.AddrPort) {
	t.Helper()
	if err := inside(ns, func() error {
		family, option, level := unix.AF_INET6, unix.IPV6_TRANSPARENT, unix.SOL_IPV6
		if from.Addr().Is4() {
			family, option, level = unix.AF_INET, unix.IP_TRANSPARENT, unix.SOL_IP
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
			return err
		}
		if err := unix.Bind(fd, sockaddr(from)); err != nil {
			return err
		}
		return unix.Sendto(fd, []byte("a packet"), 0, sockaddr(to))
	}); err != nil {
		t.Fatalf("%s to %s: %v", from, to, err)
	}
}

// answers reports whether a host answers what another sends from a port.
func answers(from host, family int, port uint16, to host) bool {
	var c *net.UDPConn
	err := inside(from.ns, func() (err error) {
		c, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(at(from.addrs[family], port)), net.UDPAddrFromAddrPort(at(to.addrs[family], 80)))
		return err
	})
	if err != nil {
		return false
	}
	defer c.Close()
	return exchange(c) == nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// has reports whether an address has connections.
func (n *node) has(t *testing.T, a netip.Addr) bool {
	t.Helper()
	flows, err := n.sink.Flows(map[netip.Addr]bool{a: true}, 1)
	if err != nil {
		t.Fatal(err)
	}
	return len(flows) > 0
}

// TestFreeAddress: whoever sends to an address of a block that nobody has, by whatever name, the
// kernel keeps no connection: the block's route drops the packet before. What comes from outside
// as from that address is another thing, unless rp_filter is on (of IPv6 there is none). But so
// it is with an address that a pod has, which may then send what its policy denies: to look
// once more when a pod comes would be of no use against it.
func TestFreeAddress(t *testing.T) {
	n := newNode(t)
	n.ns.Run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.eth0.rp_filter=0")
	n.ns.IP("route add blackhole 10.9.0.0/26")
	n.ns.IP("-6 route add blackhole fd09::/122")
	n.ns.Run("nft", "add table inet services; add chain inet services pre { type nat hook prerouting priority dstnat; }; "+
		"add rule inet services pre ip daddr 10.96.0.1 dnat ip to 10.9.0.5; add rule inet services pre ip6 daddr fd96::1 dnat ip6 to fd09::5")
	pod, server, outside := n.hosts[0], n.hosts[1], n.hosts[3]
	n.apply(t, program(map[string]policy.Endpoint{"cali0": {Egress: "e-0"}, "cali1": {}, "cali2": {}}, nil, chain("e-0")))
	for family, free := range []netip.Addr{netip.MustParseAddr("10.9.0.5"), netip.MustParseAddr("fd09::5")} {
		service := netip.MustParseAddr([]string{"10.96.0.1", "fd96::1"}[family])
		for _, h := range n.hosts {
			sends(t, h.ns, at(h.addrs[family], 4000), at(free, 80))
			sends(t, h.ns, at(h.addrs[family], 4001), at(service, 80))
		}
		if err := inside(n.ns, func() error {
			fd, err := unix.Socket([]int{unix.AF_INET, unix.AF_INET6}[family], unix.SOCK_DGRAM, 0)
			if err == nil {
				defer unix.Close(fd)
				err = unix.Sendto(fd, []byte("a packet"), 0, sockaddr(at(free, 80)))
			}
			return err
		}); err == nil {
			t.Errorf("the host sends to %s", free)
		}
		if n.has(t, free) {
			t.Errorf("%s has a connection, though nobody has it", free)
		}
		for _, a := range []netip.Addr{free, pod.addrs[family]} {
			sends(t, outside.ns, at(a, 4002), at(server.addrs[family], 80))
			if !n.has(t, a) {
				t.Errorf("no connection by a packet from outside as from %s", a)
			}
		}
		if answers(pod, family, 4003, server) || !answers(pod, family, 4002, server) {
			t.Error("a pod that may send nothing sends, or not even what somebody else has sent as from its address")
		}
	}
}
