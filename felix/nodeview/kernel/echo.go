package kernel

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/nodeview"
)

// wait is how long an answer is waited for, each of two times.
const wait = time.Second

// Echo sends an ICMP echo request that makes an IP packet of size bytes, with
// "don't fragment", and waits for the answer; a lost one is sent again once.
func Echo(ctx context.Context, to, from netip.Addr, size int) nodeview.Probe {
	p := nodeview.Probe{Size: size}
	for range 2 {
		start := time.Now()
		err := echo(ctx, to, from, size)
		if err == nil {
			p.OK, p.RTT, p.Reason = true, time.Since(start), ""
			return p
		}
		p.Reason = err.Error()
		if errors.Is(err, unix.EMSGSIZE) {
			return p
		}
	}
	return p
}

type family struct {
	network  string
	header   int
	request  icmp.Type
	reply    icmp.Type
	protocol int
}

func echo(ctx context.Context, to, from netip.Addr, size int) error {
	f := family{"ip4:icmp", 28, ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 1}
	if to.Is6() {
		f = family{"ip6:ipv6-icmp", 48, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58}
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return noFragments(c, to.Is6()) }}
	address := ""
	if from.IsValid() {
		address = from.String()
	}
	conn, err := lc.ListenPacket(ctx, f.network, address)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	var nonce [4]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return err
	}
	id, seq := int(binary.BigEndian.Uint16(nonce[:])), int(binary.BigEndian.Uint16(nonce[2:]))
	msg := icmp.Message{Type: f.request, Body: &icmp.Echo{ID: id, Seq: seq, Data: make([]byte, max(0, size-f.header))}}
	wire, err := msg.Marshal(nil)
	if err != nil {
		return err
	}
	if _, err := conn.WriteTo(wire, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return await(conn, f, id, seq)
}

// noFragments has the kernel refuse what does not fit, and ignore what it has
// heard of the path's MTU, so that the packet is really sent.
func noFragments(c syscall.RawConn, v6 bool) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		if v6 {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE)
		} else {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		}
	})
	return errors.Join(err, failed)
}

func await(conn net.PacketConn, f family, id, seq int) error {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			return fmt.Errorf("no answer within %s", wait)
		}
		if err != nil {
			return err
		}
		m, err := icmp.ParseMessage(f.protocol, buf[:n])
		if err != nil || m.Type != f.reply {
			continue
		}
		if e, ok := m.Body.(*icmp.Echo); ok && e.ID == id && e.Seq == seq {
			return nil
		}
	}
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}
