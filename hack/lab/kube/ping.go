package kube

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
)

// alive tells whether the address answers one of a few ICMP echo requests
// within a second each.
func alive(ctx context.Context, address netip.Addr) bool {
	const tries = 3
	for range tries {
		if ctx.Err() != nil {
			return false
		}
		if echo(address, time.Second) {
			return true
		}
	}
	return false
}

// echo sends one request from an unprivileged ICMP socket, on which the kernel
// delivers only the answers to its own requests.
func echo(address netip.Addr, timeout time.Duration) bool {
	conn, err := icmp.ListenPacket("udp4", "0.0.0.0")
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	message := icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{Seq: 1, Data: []byte("lab")}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return false
	}
	if _, err := conn.WriteTo(packet, &net.UDPAddr{IP: address.AsSlice()}); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return false
	}
	answer := make([]byte, 512)
	n, _, err := conn.ReadFrom(answer)
	if err != nil {
		return false
	}
	parsed, err := icmp.ParseMessage(1, answer[:n])
	return err == nil && parsed.Type == ipv4.ICMPTypeEchoReply
}
