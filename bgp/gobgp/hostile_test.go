package gobgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// hostile is what the test binary does in a namespace when it is the peer that
// means harm: open a session as it should, then send rubbish, again and again.
// Its argument is "seed rounds", or "flood count".
func hostile(arg string) int {
	var count int
	if _, err := fmt.Sscanf(arg, "flood %d", &count); err == nil {
		if err := flood(count); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	var seed uint64
	var rounds int
	if _, err := fmt.Sscan(arg, &seed, &rounds); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range rounds {
		if err := attack(r, i); err != nil {
			fmt.Fprintf(os.Stderr, "round %d: %v\n", i, err)
			return 1
		}
	}
	fmt.Println("done")
	return 0
}

func attack(r *rand.Rand, round int) error {
	conn, err := enter(400) // the speaker closes its door for a moment after each round
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	for range 200 {
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := conn.Write(rubbish(r, round)); err != nil {
			return nil // closed on us, as it may
		}
	}
	return nil
}

// handshake opens a session in AS 65666.
func handshake(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	caps := packet.NewOptionParameterCapability([]packet.ParameterCapabilityInterface{
		packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapMultiProtocol(packet.RF_IPv6_UC), packet.NewCapFourOctetASNumber(65666),
	})
	open, err := packet.NewBGPOpenMessage(65500, 90, netip.MustParseAddr("10.9.0.66"), []packet.OptionParameterInterface{caps})
	if err != nil {
		return err
	}
	open.Body.(*packet.BGPOpen).MyAS = packet.AS_TRANS
	for _, m := range []*packet.BGPMessage{open, packet.NewBGPKeepAliveMessage()} {
		b, err := m.Serialize()
		if err != nil {
			return err
		}
		if _, err := c.Write(b); err != nil {
			return err
		}
	}
	head := make([]byte, 19)
	for {
		if _, err := io.ReadFull(c, head); err != nil {
			return err
		}
		n := int(binary.BigEndian.Uint16(head[16:])) - 19
		if _, err := io.CopyN(io.Discard, c, int64(n)); err != nil {
			return err
		}
		switch head[18] {
		case packet.BGP_MSG_KEEPALIVE:
			return nil
		case packet.BGP_MSG_NOTIFICATION:
			return fmt.Errorf("refused")
		}
	}
}

// rubbish is a message: random, or a good UPDATE with a few bytes changed.
func rubbish(r *rand.Rand, round int) []byte {
	if round%3 == 0 {
		body := make([]byte, r.IntN(200))
		for i := range body {
			body[i] = byte(r.Uint32())
		}
		return frame(byte(r.IntN(8)), body)
	}
	m := goodUpdate(r)
	for range r.IntN(4) {
		if len(m) > 19 {
			m[19+r.IntN(len(m)-19)] = byte(r.Uint32())
		}
	}
	if r.IntN(10) == 0 {
		m = m[:len(m)-r.IntN(len(m)-19)]
	}
	if r.IntN(20) != 0 {
		binary.BigEndian.PutUint16(m[16:], uint16(len(m)))
	}
	return m
}

func frame(kind byte, body []byte) []byte {
	m := make([]byte, 19, 19+len(body))
	for i := range 16 {
		m[i] = 0xff
	}
	m = append(m, body...)
	binary.BigEndian.PutUint16(m[16:], uint16(len(m)))
	m[18] = kind
	return m
}

func goodUpdate(r *rand.Rand) []byte {
	p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(r.Uint32()), byte(r.Uint32())}), 1+r.IntN(32))
	nlri, _ := packet.NewIPAddrPrefix(p)
	nh, _ := packet.NewPathAttributeNextHop(netip.MustParseAddr("10.9.0.66"))
	attrs := []packet.PathAttributeInterface{
		packet.NewPathAttributeOrigin(0),
		packet.NewPathAttributeAsPath([]packet.AsPathParamInterface{packet.NewAs4PathParam(2, []uint32{65666, r.Uint32()})}),
		nh,
		packet.NewPathAttributeCommunities([]uint32{r.Uint32()}),
		packet.NewPathAttributeLargeCommunities([]*packet.LargeCommunity{{ASN: r.Uint32(), LocalData1: 1, LocalData2: 2}}),
		packet.NewPathAttributeLocalPref(r.Uint32()),
	}
	if r.IntN(3) == 0 {
		six, _ := packet.NewIPAddrPrefix(netip.MustParsePrefix("fd44::/64"))
		mp, _ := packet.NewPathAttributeMpReachNLRI(packet.RF_IPv6_UC, []packet.PathNLRI{{NLRI: six}}, netip.MustParseAddr("fd09::66"))
		attrs = append(attrs, mp)
	}
	b, err := packet.NewBGPUpdateMessage(nil, attrs, []packet.PathNLRI{{NLRI: nlri}}).Serialize()
	if err != nil {
		return frame(packet.BGP_MSG_UPDATE, []byte{0, 0, 0, 0})
	}
	return b
}

// Whatever a peer sends, the speaker lives and its other sessions stay up.
func TestHostilePeer(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, evil := n.Host(1), n.Host(2), n.Host(66)
	b.StartBIRD("protocol static { ipv4; route 10.250.0.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	s := startSpeaker(t, a, "")
	snap := withPeer(withPeer(clusterOf(a), b.V4, 65001), evil.V4, 65666, func(p *model.BGPPeer) {
		p.Annotations = map[string]string{"muslin.io/prefix-limit": "1000000"}
	})
	s.apply(desired(t, snap))
	s.established(b.V4)
	out := runHostile(t, evil, "1 5")
	if !strings.Contains(out, "done") {
		t.Fatalf("the attack did not run: %s", out)
	}
	for _, p := range s.state().Peers {
		if p.Address.String() == b.V4 && (p.State != "Established" || p.Flaps != 0) {
			t.Errorf("the other peer suffered: %s", s.peers())
		}
	}
	if bad := bgptest.Contains(s.learned, "10.250.0.0/26 via [10.9.0.2]")(); bad != "" {
		t.Error(bad)
	}
}
