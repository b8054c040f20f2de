package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// echoFamily is what differs between ICMP of IPv4 and of IPv6.
type echoFamily struct {
	datagram, raw, any string
	request, reply     icmp.Type
	protocol           int
}

var (
	echo4 = echoFamily{"udp4", "ip4:icmp", "0.0.0.0", ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply, 1}
	echo6 = echoFamily{"udp6", "ip6:ipv6-icmp", "::", ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply, 58}
)

func familyOf(address netip.Addr) echoFamily {
	if address.Is4() {
		return echo4
	}
	return echo6
}

// pinger sends echo requests to one address and counts the answers.
type pinger struct {
	family echoFamily
	conn   *icmp.PacketConn
	raw    bool
	target net.Addr
	id     int

	mu       sync.Mutex
	pending  map[int]time.Time // by sequence number on the wire
	received int
	rttMin   time.Duration
	rttMax   time.Duration
	rttSum   time.Duration
}

// report is what ping prints, times in milliseconds.
type report struct {
	Target   string `json:"target"`
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	Lost     int    `json:"lost"`
	// Failed counts requests that the kernel refused to send, as without a
	// route; they are among the lost.
	Failed int     `json:"failed"`
	MinMs  float64 `json:"minMs"`
	AvgMs  float64 `json:"avgMs"`
	MaxMs  float64 `json:"maxMs"`
}

func ping(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("ping", flag.ContinueOnError)
	count := flags.Int("c", 0, "requests to send; 0 sends until SIGTERM or SIGINT")
	interval := flags.Duration("i", time.Second, "time between requests")
	wait := flags.Duration("w", time.Second, "wait for late answers after the last request")
	host, err := parse(flags, args)
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return err
	}
	p, err := newPinger(address)
	if err != nil {
		return err
	}
	defer func() { _ = p.conn.Close() }()
	go p.receive()
	result := report{Target: host}
	ticker := time.NewTicker(*interval)
	defer ticker.Stop()
	for ctx.Err() == nil && (*count == 0 || result.Sent < *count) {
		result.Sent++
		if err := p.send(result.Sent); err != nil {
			result.Failed++
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
	p.drain(*wait)
	p.fill(&result)
	return json.NewEncoder(os.Stdout).Encode(result)
}

func newPinger(address netip.Addr) (*pinger, error) {
	p := &pinger{family: familyOf(address), pending: map[int]time.Time{}, id: os.Getpid() & 0xffff}
	conn, err := icmp.ListenPacket(p.family.datagram, p.family.any)
	p.target = &net.UDPAddr{IP: address.AsSlice(), Zone: address.Zone()}
	if err != nil {
		conn, err = icmp.ListenPacket(p.family.raw, p.family.any)
		p.raw, p.target = true, &net.IPAddr{IP: address.AsSlice(), Zone: address.Zone()}
	}
	if err != nil {
		return nil, fmt.Errorf("open ICMP socket: %w", err)
	}
	p.conn = conn
	return p, nil
}

func (p *pinger) send(sequence int) error {
	wire := sequence & 0xffff
	message := icmp.Message{Type: p.family.request, Body: &icmp.Echo{ID: p.id, Seq: wire, Data: make([]byte, 48)}}
	packet, err := message.Marshal(nil)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.pending[wire] = time.Now()
	p.mu.Unlock()
	if _, err = p.conn.WriteTo(packet, p.target); err != nil {
		p.mu.Lock()
		delete(p.pending, wire)
		p.mu.Unlock()
	}
	return err
}

// receive counts answers until the socket is closed.
func (p *pinger) receive() {
	buffer := make([]byte, 4096)
	for {
		n, _, err := p.conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as an ICMP error about an earlier request
		}
		message, err := icmp.ParseMessage(p.family.protocol, buffer[:n])
		if err != nil || message.Type != p.family.reply {
			continue
		}
		body, ok := message.Body.(*icmp.Echo)
		if !ok || p.raw && body.ID != p.id {
			continue // the answer to somebody else
		}
		p.count(body.Seq)
	}
}

func (p *pinger) count(sequence int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sent, ok := p.pending[sequence]
	if !ok {
		return // a duplicate
	}
	delete(p.pending, sequence)
	took := time.Since(sent)
	if p.received == 0 || took < p.rttMin {
		p.rttMin = took
	}
	p.rttMax = max(p.rttMax, took)
	p.rttSum += took
	p.received++
}

// drain waits for late answers, no longer than there is one to wait for.
func (p *pinger) drain(wait time.Duration) {
	for deadline := time.Now().Add(wait); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		p.mu.Lock()
		open := len(p.pending)
		p.mu.Unlock()
		if open == 0 {
			return
		}
	}
}

func (p *pinger) fill(result *report) {
	p.mu.Lock()
	defer p.mu.Unlock()
	milliseconds := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	result.Received = p.received
	result.Lost = result.Sent - p.received
	result.MinMs, result.MaxMs = milliseconds(p.rttMin), milliseconds(p.rttMax)
	if p.received > 0 {
		result.AvgMs = milliseconds(p.rttSum / time.Duration(p.received))
	}
}
