package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// serve answers each TCP connection and each UDP packet with one line: the
// peer's address and port as seen here, and this host's name.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := flags.Int("port", 8080, "TCP and UDP port")
	if err := flags.Parse(args); err != nil {
		return err
	}
	address := net.JoinHostPort("", strconv.Itoa(*port))
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	context.AfterFunc(ctx, func() { _ = errors.Join(listener.Close(), packets.Close()) })
	failed := make(chan error, 2)
	go func() { failed <- serveTCP(listener) }()
	go func() { failed <- serveUDP(packets) }()
	if err := <-failed; ctx.Err() == nil {
		return err
	}
	return nil
}

func answer(peer net.Addr) []byte {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	return fmt.Appendf(nil, "%s %s\n", peer, name)
}

func serveTCP(listener net.Listener) error {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer func() { _ = conn.Close() }()
			_, _ = conn.Write(answer(conn.RemoteAddr())) // the peer may have left
		}()
	}
}

func serveUDP(packets net.PacketConn) error {
	buffer := make([]byte, 2048)
	for {
		_, peer, err := packets.ReadFrom(buffer)
		if err != nil {
			return err
		}
		_, _ = packets.WriteTo(answer(peer), peer) // as lossy as UDP is
	}
}

// dial prints the server's answer: source address and port, host name.
func dial(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("dial", flag.ContinueOnError)
	udp := flags.Bool("udp", false, "UDP instead of TCP")
	timeout := flags.Duration("timeout", 5*time.Second, "for connecting and for the answer")
	target, err := parse(flags, args)
	if err != nil {
		return err
	}
	network := "tcp"
	if *udp {
		network = "udp"
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, target)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	line, err := ask(conn, *udp)
	if err != nil {
		return fmt.Errorf("%s %s: %w", network, target, err)
	}
	fmt.Println(line)
	return nil
}

func ask(conn net.Conn, udp bool) (string, error) {
	if udp {
		if _, err := conn.Write([]byte("?")); err != nil {
			return "", err
		}
		buffer := make([]byte, 2048)
		n, err := conn.Read(buffer)
		return strings.TrimSpace(string(buffer[:n])), err
	}
	data, err := io.ReadAll(conn)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return strings.TrimSpace(string(data)), err
}
