package nft

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// udp opens a socket in a namespace.
func udp(t *testing.T, ns *nstest.NS, at string) *net.UDPConn {
	t.Helper()
	in, err := nl.Open(ns.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	var conn *net.UDPConn
	if err := in.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(at)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestMasqueradeTakesPortsAtRandom has a pod send from a port that is within the
// range already: the kernel keeps it where it is not told to take any.
func TestMasqueradeTakesPortsAtRandom(t *testing.T) {
	const count, low, high = 16, 10000, 20000
	w := newWorld(t)
	rules := w.rules()
	rules.NAT.PortMin, rules.NAT.PortMax = low, high
	apply(t, open(t, w.node), rules)
	for _, family := range []struct{ pod, outside, node string }{
		{"10.65.1.1", "192.168.7.2", "192.168.7.1"}, {"fd65:0:0:1::1", "fd07::2", "fd07::1"},
	} {
		from := udp(t, w.known, netip.AddrPortFrom(netip.MustParseAddr(family.pod), low+1).String())
		kept := 0
		for i := range count {
			server := udp(t, w.outside, netip.AddrPortFrom(netip.MustParseAddr(family.outside), uint16(9000+i)).String())
			if _, err := from.WriteToUDPAddrPort([]byte("x"), server.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
				t.Fatal(err)
			}
			_ = server.SetReadDeadline(time.Now().Add(time.Minute))
			_, seen, err := server.ReadFromUDPAddrPort(make([]byte, 8))
			if err != nil {
				t.Fatal(err)
			}
			if seen.Addr() != netip.MustParseAddr(family.node) || seen.Port() < low || seen.Port() > high {
				t.Errorf("%s comes from %s", family.pod, seen)
			}
			if seen.Port() == low+1 {
				kept++
			}
		}
		if kept == count {
			t.Errorf("%s: each of %d connections kept its port", family.pod, count)
		}
	}
}
