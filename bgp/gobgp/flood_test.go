package gobgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// forbidden are prefixes that no peer may have its way with, each in an UPDATE
// of its own so that each is judged by itself.
var forbidden = []string{
	"0.0.0.0/0",          // a default route: spoken of, and never above the node's own (felix)
	"10.9.0.1/32",        // the node's own address
	"10.244.1.0/26",      // its own block
	"10.244.1.9/32",      // and an address in it
	"10.244.2.0/26",      // another node's block
	"10.244.2.0/27",      // and a part of it
	"127.0.0.0/8",        // loopback
	"127.1.2.3/32",       //
	"224.0.0.0/4",        // multicast
	"239.1.2.0/24",       //
	"169.254.1.1/32",     // link-local
	"240.0.0.0/4",        // class E
	"255.255.255.255/32", //
	"0.1.2.0/24",         // "this" network
}

// flood opens a session as it should and then announces the forbidden prefixes
// and count more, 1,000 to a message, as fast as they are taken. It comes back
// as often as it is let in.
func flood(count int) error {
	var sent int
	for attempt := range 3 {
		conn, err := enter(100)
		if err != nil {
			if attempt > 0 {
				break // closed to us
			}
			return err
		}
		n, err := pour(conn, count)
		_ = conn.Close()
		if err != nil {
			return err
		}
		sent += n
	}
	fmt.Println("done, prefixes sent:", sent)
	return nil
}

// enter opens a session, for as many tries as the door may be closed.
func enter(tries int) (conn net.Conn, err error) {
	for range tries {
		if conn, err = net.DialTimeout("tcp", "10.9.0.1:179", time.Second); err == nil {
			if err = handshake(conn); err == nil {
				return conn, conn.SetDeadline(time.Time{})
			}
			_ = conn.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, err
}

func pour(conn net.Conn, count int) (sent int, err error) {
	go func() { _, _ = io.Copy(io.Discard, conn) }() // whatever they say
	for _, p := range forbidden {
		m, err := announce(netip.MustParsePrefix(p))
		if err != nil {
			return sent, err
		}
		if !taken(conn, m) {
			return sent, nil
		}
		sent++
	}
	time.Sleep(time.Second) // so that what was refused can be seen
	for sent < count {
		batch := make([]netip.Prefix, 0, 1000)
		for range 1000 {
			var a [4]byte
			binary.BigEndian.PutUint32(a[:], 20<<24+uint32(sent)<<4)
			batch = append(batch, netip.PrefixFrom(netip.AddrFrom4(a), 28))
			sent++
		}
		m, err := announce(batch[:700]...) // what fits into 4,096 bytes
		if err != nil {
			return sent, err
		}
		rest, err := announce(batch[700:]...)
		if err != nil {
			return sent, err
		}
		if !taken(conn, append(m, rest...)) {
			return sent, nil
		}
	}
	return sent, nil
}

// taken is false once the session was closed on us, as it may be.
func taken(conn net.Conn, m []byte) bool {
	_, err := conn.Write(m)
	return err == nil
}

func announce(ps ...netip.Prefix) ([]byte, error) {
	nh, err := packet.NewPathAttributeNextHop(netip.MustParseAddr("10.9.0.66"))
	if err != nil {
		return nil, err
	}
	attrs := []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(0),
		packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAs4PathParam(2, []uint32{65666})}),
		nh,
	}
	var nlri []packet.PathNLRI
	for _, p := range ps {
		n, err := packet.NewIPAddrPrefix(p)
		if err != nil {
			return nil, err
		}
		nlri = append(nlri, packet.PathNLRI{NLRI: n})
	}
	return packet.NewBGPUpdateMessage(nil, attrs, nlri).Serialize()
}

// A million prefixes against a limit of a thousand, after everything that nobody
// may announce: the speaker lives, is not much bigger than before, says why each
// was refused, and the other peer notices nothing.
func TestFlood(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, evil := n.Host(1), n.Host(2), n.Host(66)
	bird := b.StartBIRD("protocol static { ipv4; route 10.250.0.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	s := startSpeaker(t, a, "")
	snap := withPeer(withPeer(clusterOf(a), b.V4, 65001), evil.V4, 65666, func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/prefix-limit": "1000"}
	})
	s.apply(desired(t, snap))
	s.established(b.V4)
	bgptest.Eventually(t, "learned", bgptest.Contains(s.learned, "10.250.0.0/26 via [10.9.0.2]"))
	before := s.ask(request{Count: true}).RSS
	done := make(chan string)
	go func() { done <- runHostile(t, evil, "flood 1000000") }()
	bgptest.Eventually(t, "refused for a reason", bgptest.Contains(s.refused,
		"10.9.0.1/32: node address", "127.0.0.0/8: martians", "127.1.2.3/32: martians", "224.0.0.0/4: martians", "239.1.2.0/24: martians",
		"169.254.1.1/32: martians", "240.0.0.0/4: martians", "255.255.255.255/32: martians", "0.1.2.0/24: martians"))
	if bad := bgptest.Lacks(s.learned, "10.9.0.1/32", "10.244.1.0/26", "127.", "224.", "239.", "169.254", "240.0", "255.255", " 0.1.2")(); bad != "" {
		t.Error(bad)
	}
	bgptest.Eventually(t, "closed for its limit", bgptest.Contains(s.peers, `error "prefix limit reached"`))
	out := <-done
	t.Logf("the flood: %s", strings.TrimSpace(out))
	bgptest.Eventually(t, "nothing of it is left", bgptest.Lacks(s.learned, "10.9.0.66"))
	after := s.ask(request{Count: true}).RSS
	t.Logf("RSS at its most: %d KiB before, %d KiB after", before, after)
	const most = 100 << 10 // KiB; a table of a million prefixes takes a gigabyte
	if grown := after - before; grown > most {
		t.Errorf("the speaker grew by %d KiB", grown)
	}
	for _, p := range s.state().Peers {
		if p.Address.String() == b.V4 && (!p.Up() || p.Flaps != 0) {
			t.Errorf("the other peer suffered: %s", s.peers())
		}
	}
	if bad := bgptest.Lacks(bird.Routes, "10.9.0.66", "20.0.")(); bad != "" {
		t.Errorf("the other peer was told: %s", bad)
	}
	if bad := bgptest.Contains(s.learned, "10.250.0.0/26 via [10.9.0.2]")(); bad != "" {
		t.Error(bad)
	}
}
