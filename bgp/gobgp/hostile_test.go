package gobgp

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// hostile is what the test binary does in a namespace when it is the peer that
// means harm: open a session as it should, then send rubbish, again and again.
// Its argument is "seed rounds", "flood count", "claim prefix…", or "send
// message…", in hexadecimal.
func hostile(arg string) int {
	if list, ok := strings.CutPrefix(arg, "claim "); ok {
		if err := claim(strings.Fields(list)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
	if list, ok := strings.CutPrefix(arg, "send "); ok {
		if err := send(strings.Fields(list)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return 0
	}
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

// claim announces prefixes and keeps the session up until it is killed.
func claim(list []string) error {
	conn, err := enter(400)
	if err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	for _, p := range list {
		m, err := announce(netip.MustParsePrefix(p))
		if err != nil {
			return err
		}
		if _, err := conn.Write(m); err != nil {
			return err
		}
	}
	alive, err := packet.NewBGPKeepAliveMessage().Serialize()
	for err == nil {
		time.Sleep(10 * time.Second)
		_, err = conn.Write(alive)
	}
	return err
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
		if p.Address.String() == b.V4 && (!p.Up() || p.Flaps != 0) {
			t.Errorf("the other peer suffered: %s", s.peers())
		}
	}
	if bad := bgptest.Contains(s.learned, "10.250.0.0/26 via [10.9.0.2]")(); bad != "" {
		t.Error(bad)
	}
}

// A peer that claims what is not its own, in each mode of the origin check: as a
// router outside the cluster, and as a node of it. What the import rules refuse
// never gets as far as the check.
func TestClaims(t *testing.T) {
	claims := "0.0.0.0/0 10.9.0.1/32 127.0.0.0/8 224.0.0.0/4 10.244.1.0/26 10.244.2.0/26 10.244.2.0/27 10.244.77.0/26 198.51.100.0/24 0.0.0.0/1 128.0.0.0/1 10.9.0.2/32"
	const byBoth = "10.244.2.0/26 via [10.9.0.2 10.9.0.66]\n"
	for name, tc := range map[string]struct {
		node     bool
		near     bool     // the owner is on our own subnet
		refused  []string // by the check, in warn and enforce
		enforced string   // what is left to be installed
		reported []string // what the import rules refuse beside what nobody may announce
	}{
		// the owner of a block may be behind a router, of a part of it not
		"router": {false, false, []string{"10.244.2.0/27: NoBlock", "10.244.77.0/26: NoBlock"}, "0.0.0.0/0 via [10.9.0.66]\n0.0.0.0/1 via [10.9.0.66]\n10.9.0.2/32 via [10.9.0.66]\n" + byBoth + "128.0.0.0/1 via [10.9.0.66]\n198.51.100.0/24 via [10.9.0.66]\n", nil},
		"router beside the owner": {false, true, []string{"10.244.2.0/26: NotBehind", "10.244.2.0/27: NoBlock", "10.244.77.0/26: NoBlock"},
			"0.0.0.0/0 via [10.9.0.66]\n0.0.0.0/1 via [10.9.0.66]\n10.9.0.2/32 via [10.9.0.66]\n10.244.2.0/26 via [10.9.0.2]\n128.0.0.0/1 via [10.9.0.66]\n198.51.100.0/24 via [10.9.0.66]\n", nil},
		// a node tells of pods and services, and of nothing else
		"node": {true, true, []string{"10.244.2.0/26: WrongOwner", "10.244.2.0/27: WrongOwner", "10.244.77.0/26: NoBlock"},
			"10.244.2.0/26 via [10.9.0.2]\n", []string{
				"0.0.0.0/0: not a node's to announce", "0.0.0.0/1: not a node's to announce", "128.0.0.0/1: not a node's to announce",
				"198.51.100.0/24: not a node's to announce", "10.9.0.2/32: node address",
			}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b, evil := n.Host(1), n.Host(2), n.Host(66)
			bird := b.StartBIRD("protocol static { ipv4; route 10.244.2.0/26 blackhole; }\n" + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
			snap := withPeer(withPeer(withNode(clusterOf(a), "b", b), b.V4, 65001), evil.V4, 65666)
			snap.BGP[0].MeshEnabled, snap.Nodes[1].ASN = off(), 65001
			snap.Blocks = append(snap.Blocks, model.Block{CIDR: pfx("10.244.2.0/26"), Node: "b", State: model.BlockConfirmed})
			if !tc.near { // as far as is known
				snap.Nodes[0].IPv4 = netip.PrefixFrom(snap.Nodes[0].IPv4.Addr(), 32)
			}
			if tc.node {
				snap = withNode(snap, "evil", evil)
				snap.Nodes[2].ASN = 65666
			}
			s := startSpeaker(t, a, "")
			s.apply(desired(t, snap))
			s.established(b.V4)
			evil.Start("env", hostileEnv+"=claim "+claims, os.Args[0])
			bgptest.Eventually(t, "claims", bgptest.Contains(s.learned, "10.244.2.0/26 via [10.9.0.2 10.9.0.66]", "10.244.2.0/27", "10.244.77.0/26"))
			bgptest.Eventually(t, "refused by the import rules", bgptest.Contains(s.refused,
				append(tc.reported, "10.9.0.1/32: node address", "127.0.0.0/8: martians", "224.0.0.0/4: martians")...))
			if tc.reported == nil {
				bgptest.Eventually(t, "a router's", bgptest.Contains(s.learned, "0.0.0.0/0 via", "0.0.0.0/1 via", "128.0.0.0/1 via", "198.51.100.0/24", "10.9.0.2/32"))
			}
			learned := s.state().Learned
			all := installable(learned)
			if bad := bgptest.Lacks(func() string { return all }, "10.9.0.1/32", "127.", "224.", "10.244.1.0")(); bad != "" {
				t.Error(bad)
			}
			for mode, want := range map[bgp.OriginMode]string{bgp.OriginOff: all, bgp.OriginWarn: all, bgp.OriginEnforce: tc.enforced} {
				snap.BGP[0].Annotations = map[string]string{bgp.AnnotationOriginCheck: string(mode)}
				kept, refused := bgp.NewOriginCheck(snap, "a").Apply(learned, nil)
				var stated []string
				for _, r := range refused {
					if r.From.String() != evil.V4 || r.NextHop.String() != evil.V4 {
						t.Errorf("%s: %v is held against somebody else", mode, r)
					}
					stated = append(stated, r.Prefix.String()+": "+r.Reason)
				}
				if mode == bgp.OriginOff && len(stated) > 0 || mode != bgp.OriginOff && !slices.Equal(stated, tc.refused) {
					t.Errorf("%s: refused %q, want %q", mode, stated, tc.refused)
				}
				if got := installable(kept); got != want {
					t.Errorf("%s: to be installed:\n%swant:\n%s", mode, got, want)
				}
			}
			if bad := bgptest.Lacks(func() string { return bird.Route("0.0.0.0/0") }, "BGP.as_path")(); bad != "" {
				t.Errorf("the default route was passed on: %s", bad)
			}
			for _, p := range s.state().Peers {
				if !p.Up() || p.Flaps != 0 {
					t.Errorf("sessions suffered: %s", s.peers())
				}
			}
		})
	}
}

// installable is what the data plane gets, one prefix a line.
func installable(learned []model.Learned) string {
	var w strings.Builder
	for _, l := range learned {
		fmt.Fprintf(&w, "%s via %v\n", l.Prefix, l.NextHops)
	}
	return w.String()
}
