package gobgp

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// fuzzPeers is how many addresses the messages come from in turn: GoBGP closes
// its door to one for some seconds after it has closed a session with it.
const fuzzPeers = 200

// FuzzSpeaker sends messages to a live speaker over real sessions: one of a kind
// with a body, once alone and once after an UPDATE that is as it should be. The
// speaker must live, keep its session with a peer that behaves, and not let the
// prefixes of the other pile up. The corpus is in testdata/fuzz/FuzzSpeaker.
func FuzzSpeaker(f *testing.F) {
	victim := newVictim(f)
	good, err := announce(netip.MustParsePrefix("10.250.1.0/26"))
	if err != nil {
		f.Fatal(err)
	}
	for kind := range byte(7) {
		f.Add(kind, []byte{})
	}
	f.Add(byte(packet.BGP_MSG_UPDATE), good[19:])
	f.Add(byte(packet.BGP_MSG_UPDATE), []byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, kind byte, body []byte) {
		body = body[:min(len(body), packet.BGP_MAX_MESSAGE_LENGTH-19)]
		conn := victim.enter(t)
		defer func() { _ = conn.Close() }()
		for _, m := range [][]byte{frame(kind, body), good, frame(kind, body)} {
			if _, err := conn.Write(m); err != nil {
				break // closed on us, as it may
			}
		}
		_ = conn.(*net.TCPConn).CloseWrite() // and wait until everything was read, or the door is shut
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		_, _ = io.Copy(io.Discard, conn)
		victim.check(t)
	})
}

// victim is a speaker on the loopback, with one peer that behaves.
type victim struct {
	speaker *Speaker
	addr    string
	next    atomic.Uint32
}

func newVictim(f *testing.F) *victim {
	f.Helper()
	probe, err := net.Listen("tcp", "127.0.0.1:0") // a port that is free
	if err != nil {
		f.Fatal(err)
	}
	port := probe.Addr().(*net.TCPAddr).Port
	_ = probe.Close()
	v := &victim{addr: fmt.Sprintf("127.0.0.1:%d", port)}
	cfg := bgp.Config{ASN: 64512, RouterID: netip.MustParseAddr("127.0.0.1"), ListenPort: port, Listen: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, MaxPaths: 16}
	peer := func(a netip.Addr, limit int) {
		cfg.Peers = append(cfg.Peers, bgp.Peer{
			Address: a, ASN: 65666, LocalASN: 64512, Port: port, LocalAddress: netip.MustParseAddr("127.0.0.1"), Passive: true,
			Families: model.Families[:], HoldTime: time.Hour, Keepalive: time.Hour / 3, RestartTime: time.Second, PrefixLimit: limit,
		})
	}
	peer(netip.MustParseAddr("127.0.0.2"), 0)
	for i := range fuzzPeers {
		peer(fuzzAddr(uint32(i)), 10)
	}
	v.speaker = New(Options{Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = v.speaker.Run(ctx) })
	f.Cleanup(func() { cancel(); run.Wait(); v.speaker.Close(context.Background()) })
	if err := v.speaker.Apply(ctx, cfg); err != nil {
		f.Fatal(err)
	}
	v.behave(f)
	return v
}

func fuzzAddr(i uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 0, 1, byte(1 + i%fuzzPeers)})
}

// dial opens a session from one of the peers' addresses.
func (v *victim) dial(from netip.Addr) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: from.AsSlice()}, Timeout: time.Second}
	conn, err := d.Dial("tcp", v.addr)
	if err != nil {
		return nil, err
	}
	if err := handshake(conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(10 * time.Second))
}

// behave holds the session of the peer that does no harm, and announces one
// prefix on it.
func (v *victim) behave(f *testing.F) {
	f.Helper()
	m, err := announce(netip.MustParsePrefix("10.250.0.0/26"))
	if err != nil {
		f.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := v.dial(netip.MustParseAddr("127.0.0.2"))
		if err == nil {
			_ = conn.SetDeadline(time.Time{})
			f.Cleanup(func() { _ = conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			if _, err = conn.Write(m); err == nil {
				break
			}
		}
		if time.Now().After(end) {
			f.Fatal(err)
		}
	}
	for end := time.Now().Add(time.Minute); len(v.speaker.Learned()) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			f.Fatal("the speaker does not learn")
		}
	}
}

// enter opens a session from the next address whose door is open.
func (v *victim) enter(t *testing.T) net.Conn {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		conn, err := v.dial(fuzzAddr(v.next.Add(1)))
		if err == nil {
			return conn
		}
		if time.Now().After(end) {
			t.Fatalf("the speaker lets nobody in: %v", err)
		}
	}
}

// check asks for what must hold whatever was sent. A session that has ended
// takes its routes with it a moment later.
func (v *victim) check(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		bad := v.wrong()
		if bad == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatal(bad)
		}
	}
}

// wrong says what is not as it must be.
func (v *victim) wrong() string {
	good := netip.MustParseAddr("127.0.0.2")
	learned := v.speaker.Learned()
	if most := 11 * fuzzPeers; len(learned) > most {
		return fmt.Sprintf("%d prefixes have piled up", len(learned))
	}
	if !slices.ContainsFunc(learned, func(l model.Learned) bool {
		return l.Prefix == netip.MustParsePrefix("10.250.0.0/26") && slices.Contains(l.From, good)
	}) {
		return fmt.Sprintf("the good peer's route is gone from %+v", learned)
	}
	for _, p := range v.speaker.Peers() {
		if p.Address == good && (!p.Up() || p.Flaps != 0) {
			return fmt.Sprintf("the good peer suffered: %+v", p)
		}
	}
	return ""
}
