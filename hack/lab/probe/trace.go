package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// trace prints the address of each hop towards the host, one a line, "*" for
// hops that stay silent, and ends with the host itself. It needs a raw ICMP
// socket, since only that hears of expired packets. Not reaching the host is
// an error.
func trace(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("trace", flag.ContinueOnError)
	hops := flags.Int("m", 16, "most hops to try")
	wait := flags.Duration("w", time.Second, "wait for each hop; three tries")
	host, err := parse(flags, args)
	if err != nil {
		return err
	}
	target, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	family := familyOf(target)
	conn, err := icmp.ListenPacket(family.raw, family.any)
	if err != nil {
		return fmt.Errorf("open raw ICMP socket: %w", err)
	}
	defer func() { _ = conn.Close() }()
	t := tracer{family: family, conn: conn, target: target, id: os.Getpid() & 0xffff}
	for ttl := 1; ttl <= *hops && ctx.Err() == nil; ttl++ {
		hop, err := t.hop(ttl, *wait)
		if err != nil {
			return err
		}
		if !hop.IsValid() {
			fmt.Println("*")
			continue
		}
		fmt.Println(hop)
		if hop == target {
			return nil
		}
	}
	return fmt.Errorf("%s not reached in %d hops", target, *hops)
}

type tracer struct {
	family   echoFamily
	conn     *icmp.PacketConn
	target   netip.Addr
	id       int
	sequence int
}

// hop returns who answers a request of this time to live, or an invalid
// address when nobody does.
func (t *tracer) hop(ttl int, wait time.Duration) (netip.Addr, error) {
	const tries = 3
	if err := t.setTTL(ttl); err != nil {
		return netip.Addr{}, fmt.Errorf("set time to live: %w", err)
	}
	for range tries {
		t.sequence++
		message := icmp.Message{Type: t.family.request, Body: &icmp.Echo{ID: t.id, Seq: t.sequence, Data: make([]byte, 32)}}
		packet, err := message.Marshal(nil)
		if err != nil {
			return netip.Addr{}, err
		}
		if _, err := t.conn.WriteTo(packet, &net.IPAddr{IP: t.target.AsSlice(), Zone: t.target.Zone()}); err != nil {
			return netip.Addr{}, fmt.Errorf("send to %s: %w", t.target, err)
		}
		hop, err := t.listen(time.Now().Add(wait))
		if err != nil || hop.IsValid() {
			return hop, err
		}
	}
	return netip.Addr{}, nil
}

func (t *tracer) setTTL(ttl int) error {
	if t.target.Is4() {
		return t.conn.IPv4PacketConn().SetTTL(ttl)
	}
	return t.conn.IPv6PacketConn().SetHopLimit(ttl)
}

// listen waits for the answer to the last request: the echo reply itself, or
// an error that quotes it.
func (t *tracer) listen(deadline time.Time) (netip.Addr, error) {
	if err := t.conn.SetReadDeadline(deadline); err != nil {
		return netip.Addr{}, err
	}
	buffer := make([]byte, 4096)
	for {
		n, from, err := t.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return netip.Addr{}, nil
		}
		if err != nil {
			return netip.Addr{}, err
		}
		message, err := icmp.ParseMessage(t.family.protocol, buffer[:n])
		if err != nil || !t.isAnswer(message) {
			continue
		}
		address, ok := from.(*net.IPAddr)
		if !ok {
			continue
		}
		hop, _ := netip.AddrFromSlice(address.IP)
		return hop.Unmap(), nil
	}
}

func (t *tracer) isAnswer(message *icmp.Message) bool {
	switch body := message.Body.(type) {
	case *icmp.Echo:
		return message.Type == t.family.reply && body.ID == t.id && body.Seq == t.sequence
	case *icmp.TimeExceeded:
		return t.quoted(body.Data)
	case *icmp.DstUnreach:
		return t.quoted(body.Data)
	}
	return false
}

// quoted tells whether an ICMP error is about the last request: it holds the
// IP header and the first 8 bytes after it (RFC 792; RFC 4443, section 2.4).
func (t *tracer) quoted(data []byte) bool {
	header := ipv6.HeaderLen
	if t.target.Is4() {
		if len(data) < ipv4.HeaderLen {
			return false
		}
		header = int(data[0]&0x0f) * 4
	}
	if len(data) < header+8 {
		return false
	}
	echo := data[header:]
	return int(echo[4])<<8|int(echo[5]) == t.id && int(echo[6])<<8|int(echo[7]) == t.sequence
}
