package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"
)

// sent is what stream prints.
type sent struct {
	Target string `json:"target"`
	Sent   int    `json:"sent"`
	// Failed counts packets that the kernel refused; they are among Sent.
	Failed int `json:"failed"`
}

// stream sends numbered UDP packets to one address at an even rate, turn by turn
// from several source ports, so that routers which balance by ports spread
// them. Nothing comes back: sink counts at the other end.
func stream(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("stream", flag.ContinueOnError)
	rate := flags.Int("rate", 1000, "packets a second")
	flows := flags.Int("flows", 16, "source ports to send from")
	target, err := parse(flags, args)
	if err != nil {
		return err
	}
	if *rate < 1 || *flows < 1 || *flows > 1<<16 {
		return errors.New("stream: want a rate of at least 1 and 1 to 65536 flows")
	}
	var conns []net.Conn
	for range *flows {
		conn, err := net.Dial("udp", target)
		if err != nil {
			return fmt.Errorf("stream to %s: %w", target, err)
		}
		defer func() { _ = conn.Close() }()
		conns = append(conns, conn)
	}
	result := sent{Target: target}
	packet := make([]byte, 64)
	for began := time.Now(); ctx.Err() == nil; time.Sleep(time.Millisecond) {
		// What is due by now; after a pause of the scheduler that is several.
		for due := int(time.Since(began).Seconds() * float64(*rate)); result.Sent < due; result.Sent++ {
			flow := result.Sent % *flows
			binary.BigEndian.PutUint16(packet, uint16(flow))
			binary.BigEndian.PutUint64(packet[2:], uint64(result.Sent))
			if _, err := conns[flow].Write(packet); err != nil {
				result.Failed++
			}
		}
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// got is what sink prints, times in milliseconds.
type got struct {
	Received int `json:"received"`
	// Flows is how many source ports were heard from, LongestGapMs the longest
	// time between two packets of one of them.
	Flows        int     `json:"flows"`
	LongestGapMs float64 `json:"longestGapMs"`
}

// sink counts what stream sends, each number once.
func sink(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("sink", flag.ContinueOnError)
	port := flags.Int("port", 9000, "UDP port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: *port})
	if err != nil {
		return fmt.Errorf("sink on port %d: %w", *port, err)
	}
	_ = conn.SetReadBuffer(4 << 20)
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	var result got
	seen := map[uint64]bool{}
	last := map[uint16]time.Time{}
	buffer := make([]byte, 2048)
	for {
		n, err := conn.Read(buffer)
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil || n < 10 {
			continue // such as an ICMP error, or somebody else's packet
		}
		number, flow, now := binary.BigEndian.Uint64(buffer[2:]), binary.BigEndian.Uint16(buffer), time.Now()
		if seen[number] {
			continue
		}
		seen[number] = true
		if before, ok := last[flow]; ok {
			result.LongestGapMs = max(result.LongestGapMs, float64(now.Sub(before).Microseconds())/1000)
		}
		last[flow] = now
		result.Received++
	}
	result.Flows = len(last)
	return json.NewEncoder(os.Stdout).Encode(result)
}
