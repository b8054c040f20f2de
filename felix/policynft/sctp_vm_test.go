//go:build vmtest

package policynft

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

const sctp = 132

// sctpOnly has cali0 get nothing but what a set of peers sends to SCTP port 80.
func sctpOnly(peers ...netip.Addr) policy.Program {
	return program(map[string]policy.Endpoint{"cali0": {Ingress: "i-0"}, "cali1": {}, "cali2": {}},
		[]policy.Set{{ID: "a-peers", Kind: policy.Addresses, Addresses: model.SortedOf(peers)}},
		chain("i-0", policy.Rule{
			Protocol: sctp, Source: policy.Side{In: []policy.SetID{"a-peers"}},
			Destination: policy.Side{Ports: []policy.PortRange{{First: 80, Last: 80}}}, Verdict: policy.Allow,
		}))
}

// TestSCTP: the kernel's own SCTP meets policy as TCP does: by peer and port, an association goes
// on when policy changes, and ends where established ones are evaluated again.
func TestSCTP(t *testing.T) {
	n := newNode(t)
	n.ns.Run("modprobe", "sctp")
	pod, one, two := n.hosts[0], n.hosts[1], n.hosts[2]
	for _, port := range ports1 {
		serveSCTP(t, pod.ns, port)
	}
	n.apply(t, sctpOnly(one.addrs[:]...))
	var before []net.Conn
	for family, to := range pod.addrs {
		c, err := associate(one.ns, at(to, 80))
		if err != nil {
			t.Fatalf("a peer that is allowed does not reach %s: %v", to, err)
		}
		before = append(before, c)
		expect(t, one.ns, at(to, 81), false)
		expect(t, two.ns, at(to, 80), false)
		if reaches(one.ns, tcp, at(to, 80)) {
			t.Errorf("what is allowed for SCTP lets TCP to %s, too", pod.addrs[family])
		}
	}
	n.apply(t, sctpOnly(two.addrs[:]...))
	for family, to := range pod.addrs {
		if err := exchange(before[family]); err != nil {
			t.Errorf("an established association to %s ended: %v", to, err)
		}
		expect(t, one.ns, at(to, 80), false)
		expect(t, two.ns, at(to, 80), true)
	}
	n.apply(t, epochs(sctpOnly(two.addrs[:]...)))
	for family, to := range pod.addrs {
		if exchange(before[family]) == nil {
			t.Errorf("the association to %s goes on where established ones are evaluated again", to)
		}
		before[family].Close()
	}
}

// expect tells of an association that opens and should not, or does not and should.
func expect(t *testing.T, from *nstest.NS, to netip.AddrPort, want bool) {
	t.Helper()
	c, err := associate(from, to)
	if err == nil {
		c.Close()
	}
	if (err == nil) != want {
		t.Errorf("SCTP to %s: %v, want it to open: %v", to, err, want)
	}
}

// serveSCTP echoes on a port, over both families.
func serveSCTP(t *testing.T, ns *nstest.NS, port uint16) {
	t.Helper()
	var l net.Listener
	err := withSocket(ns, unix.AF_INET6, func(fd int) error { return unix.Bind(fd, &unix.SockaddrInet6{Port: int(port)}) }, func(fd int, f *os.File) (err error) {
		if err = unix.Listen(fd, 8); err == nil {
			l, err = net.FileListener(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go echo(l)
}

// associate opens an association with an exchange on it.
func associate(from *nstest.NS, to netip.AddrPort) (net.Conn, error) {
	family := unix.AF_INET6
	if to.Addr().Is4() {
		family = unix.AF_INET
	}
	var c net.Conn
	err := withSocket(from, family, func(fd int) error { return unix.Connect(fd, sockaddr(to)) }, func(_ int, f *os.File) (err error) {
		c, err = net.FileConn(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := exchange(c); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// withSocket opens an SCTP socket that waits as long as a reply takes, readies it and gives it to
// what the net package makes of it.
func withSocket(ns *nstest.NS, family int, ready func(fd int) error, give func(fd int, f *os.File) error) error {
	return inside(ns, func() error {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_SCTP)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "sctp")
		defer f.Close()
		wait := unix.NsecToTimeval(reply.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &wait); err != nil {
			return err
		}
		if err := ready(fd); err != nil {
			return err
		}
		return give(fd, f)
	})
}
