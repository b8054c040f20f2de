package gobgp

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// failing is a session that does not come up, and what is said of it.
type failing struct {
	name   string
	peer   func(*model.BGPPeer)
	router func(a, b *bgptest.Host)
	reason string
	words  []string
}

func birdAs(as, expects int, options string) func(a, b *bgptest.Host) {
	return func(a, b *bgptest.Host) { b.StartBIRD(bgptest.BIRDPeer("node", b.V4, as, a.V4, expects, options)) }
}

func frrAs(as, expects int, options string) func(a, b *bgptest.Host) {
	return func(a, b *bgptest.Host) { b.StartFRR(bgptest.FRRPeer(as, b.V4, a.V4, expects, options)) }
}

func annotated(key, value string) func(*model.BGPPeer) {
	return func(p *model.BGPPeer) { p.Annotations = map[string]string{key: value} }
}

func withPassword(pw string) func(*model.BGPPeer) {
	return func(p *model.BGPPeer) {
		p.Password = &model.PasswordRef{SecretName: "s", Key: "k", Known: true, Value: model.NewSecret(pw)}
	}
}

var failings = []failing{
	{name: "peer-says-another-as-bird", router: birdAs(65009, 64512, ""), reason: "bad-peer-as", words: []string{"bad peer AS", "AS number than 65001"}},
	{name: "peer-says-another-as-frr", router: frrAs(65009, 64512, ""), reason: "bad-peer-as", words: []string{"bad peer AS", "AS number than 65001"}},
	{name: "peer-expects-another-as-bird", router: birdAs(65001, 64513, ""), reason: "open-refused", words: []string{"refused this node's OPEN", "AS number than 64512"}},
	{name: "peer-expects-another-as-frr", router: frrAs(65001, 64513, ""), reason: "open-refused", words: []string{"refused this node's OPEN", "AS number than 64512"}},
	{name: "no-common-family-bird", peer: annotated("muslin.io/families", "ipv4"), reason: "open-refused", words: []string{"no address family that is offered (ipv4)"},
		router: func(a, b *bgptest.Host) {
			b.StartBIRD(fmt.Sprintf(`protocol bgp node { local %s as 65001; neighbor %s as 64512; multihop; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv6 { import all; export all; }; }
`, b.V4, a.V4))
		}},
	{name: "no-common-family-frr", peer: annotated("muslin.io/families", "ipv6"), reason: "open-refused", words: []string{"no address family that is offered (ipv6)"},
		router: func(a, b *bgptest.Host) {
			b.StartFRR(fmt.Sprintf("router bgp 65001\n no bgp ebgp-requires-policy\n neighbor %[1]s remote-as 64512\n neighbor %[1]s ebgp-multihop 255\n neighbor %[1]s timers connect 1\n", a.V4))
		}},
	{name: "nobody-listens", router: func(*bgptest.Host, *bgptest.Host) {}, reason: "connection-refused", words: []string{"connection refused", "port 179"}},
	{name: "wrong-password-bird", peer: withPassword("one"), router: birdAs(65001, 64512, `password "other";`), reason: "connection-timed-out", words: []string{"timed out", "another password"}},
	{name: "wrong-password-frr", peer: withPassword("one"), router: frrAs(65001, 64512, " neighbor 10.9.0.1 password other\n"), reason: "connection-timed-out", words: []string{"timed out", "another password"}},
	{name: "wants-a-password", router: birdAs(65001, 64512, `password "one";`), reason: "connection-timed-out", words: []string{"timed out", "another password"}},
	{name: "silent", router: func(_, b *bgptest.Host) { b.Unplug() }, reason: "connection-timed-out", words: []string{"timed out"}},
	{name: "no-way", peer: func(p *model.BGPPeer) { p.PeerIP = netip.MustParseAddr("192.0.2.9") }, router: func(*bgptest.Host, *bgptest.Host) {},
		reason: "unreachable", words: []string{"not reachable: network is unreachable"}},
	{name: "same-router-id", peer: func(p *model.BGPPeer) { p.ASN = 64512 }, reason: "notification-sent", words: []string{"refused the peer's OPEN", "bad bgp identifier"},
		router: func(a, b *bgptest.Host) {
			b.StartBIRD("router id 10.9.0.1;\n" + bgptest.BIRDPeer("node", b.V4, 64512, a.V4, 64512, ""))
		}},
}

// Each way in which a session fails to come up is named, by BIRD and FRR's
// doing.
func TestWhyNotEstablished(t *testing.T) {
	for _, f := range failings {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			snap := withPeer(clusterOf(a), b.V4, 65001)
			if f.peer != nil {
				f.peer(&snap.Peers[0])
			}
			f.router(a, b)
			s := startSpeaker(t, a, "confined")
			s.apply(desired(t, snap))
			bgptest.Eventually(t, "said", func() string { return says(s, f.reason, f.words...) })
			if bad := bgptest.Lacks(s.peers, "Established")(); bad != "" {
				t.Error(bad)
			}
		})
	}
}

// says is a check of the reason and the words of the only peer.
func says(s *process, reason string, words ...string) string {
	p := s.state().Peers[0]
	if p.LastReason != reason {
		return fmt.Sprintf("reason %q, want %q: %s", p.LastReason, reason, p.LastError)
	}
	return bgptest.Contains(func() string { return p.LastError }, words...)()
}

// What ends a session is named, too, and stays to be read when it is back.
func TestWhyLost(t *testing.T) {
	t.Run("cease-bird", func(t *testing.T) {
		t.Parallel()
		s, bird, _ := sessionWithBIRD(t, "")
		bird.Ask("disable", "node", "\"maintenance\"")
		bgptest.Eventually(t, "shutdown", func() string {
			return says(s, "notification-received", "the peer ended the session: cease, administrative shutdown")
		})
		bird.Ask("enable", "node")
		s.established(s.state().Peers[0].Address.String())
		if bad := says(s, "notification-received", "administrative shutdown"); bad != "" {
			t.Error(bad)
		}
		bird.Ask("restart", "node")
		bgptest.Eventually(t, "reset", func() string {
			return says(s, "notification-received", "cease, administrative reset")
		})
	})
	t.Run("cease-frr", func(t *testing.T) {
		t.Parallel()
		n := bgptest.New(t)
		a, b := n.Host(1), n.Host(2)
		frr := b.StartFRR(bgptest.FRRPeer(65001, b.V4, a.V4, 64512, ""))
		s := startSpeaker(t, a, "")
		s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65001)))
		s.established(b.V4)
		frr.Ask("configure terminal", "router bgp 65001", "neighbor 10.9.0.1 shutdown")
		bgptest.Eventually(t, "shutdown", func() string {
			return says(s, "notification-received", "cease, administrative shutdown")
		})
		frr.Ask("configure terminal", "router bgp 65001", "no neighbor 10.9.0.1 shutdown")
		s.established(b.V4)
		frr.Ask("configure terminal", "router bgp 65001", "no neighbor 10.9.0.1")
		bgptest.Eventually(t, "deconfigured", func() string {
			return says(s, "notification-received", "cease, peer deconfigured")
		})
	})
	t.Run("prefixes-at-the-peer", func(t *testing.T) {
		t.Parallel()
		s, bird, snap := sessionWithLimit(t, 2)
		s.established(snap.Peers[0].PeerIP.String())
		bgptest.Eventually(t, "the first table", bgptest.Contains(func() string { return bird.Ask("show", "route") }, "10.244.1.0/26", "10.244.9.9/32"))
		snap.Borrowed = append(snap.Borrowed, prefixes("10.244.9.10/32")...)
		s.apply(desired(t, snap))
		bgptest.Eventually(t, "limit", func() string {
			return says(s, "notification-received", "cease, maximum number of prefixes reached")
		})
	})
	// The peer has closed while this node is still writing its first table.
	t.Run("prefixes-at-the-peer-at-once", func(t *testing.T) {
		t.Parallel()
		s, _, _ := sessionWithLimit(t, 1)
		bgptest.Eventually(t, "limit", func() string {
			bad := says(s, "notification-received", "cease, maximum number of prefixes reached")
			if bad != "" && !patched("0013") {
				return says(s, "connection-refused", "connection refused")
			}
			return bad
		})
	})
	t.Run("hold-timer", func(t *testing.T) {
		t.Parallel()
		s, _, b := sessionWithBIRD(t, "3s")
		b.Unplug()
		bgptest.Eventually(t, "silence", func() string { return says(s, "hold-timer-expired", "hold timer expired") })
	})
	t.Run("closed", func(t *testing.T) {
		t.Parallel()
		n := bgptest.New(t)
		a, b := n.Host(1), n.Host(2)
		bird := b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
		s := startSpeaker(t, a, "")
		s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65001)))
		s.established(b.V4)
		b.Run("kill -9 $(cat " + b.File("bird.pid") + ")")
		bgptest.Eventually(t, "gone", func() string {
			if bad := says(s, "connection-closed", "closed without a NOTIFICATION"); bad != "" {
				return says(s, "connection-refused", "connection refused") // a moment later
			}
			return ""
		})
		_ = bird
	})
}

// A password that is changed under a session ends it by this node's own doing.
// What is said afterwards is why it does not come back, not how it was ended.
func TestWhyNotBack(t *testing.T) {
	for name, router := range map[string]func(a, b *bgptest.Host){"bird": birdAs(65001, 64512, ""), "frr": frrAs(65001, 64512, "")} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := bgptest.New(t)
			a, b := n.Host(1), n.Host(2)
			router(a, b)
			snap := withPeer(clusterOf(a), b.V4, 65001)
			s := startSpeaker(t, a, "")
			s.apply(desired(t, snap))
			s.established(b.V4)
			withPassword("other")(&snap.Peers[0])
			s.apply(desired(t, snap))
			bgptest.Eventually(t, "said", func() string { return says(s, "connection-timed-out", "timed out", "another password") })
		})
	}
}

// sessionWithBIRD is an established session with a hold time.
func sessionWithBIRD(t *testing.T, hold string) (*process, *bgptest.BIRD, *bgptest.Host) {
	t.Helper()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	snap := withPeer(clusterOf(a), b.V4, 65001)
	if hold != "" {
		annotated("muslin.io/hold-time", hold)(&snap.Peers[0])
	}
	s := startSpeaker(t, a, "")
	s.apply(desired(t, snap))
	s.established(b.V4)
	return s, bird, b
}

// sessionWithLimit has BIRD end the session for good with more than limit prefixes.
func sessionWithLimit(t *testing.T, limit int) (*process, *bgptest.BIRD, model.Snapshot) {
	t.Helper()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(2)
	bird := b.StartBIRD(fmt.Sprintf(`protocol bgp node { local %s as 65001; neighbor %s as 64512; multihop; connect delay time 1; connect retry time 1;
  error wait time 1, 2; ipv4 { import all; export all; import limit %d action disable; }; }
`, b.V4, a.V4, limit))
	s := startSpeaker(t, a, "")
	snap := withPeer(clusterOf(a), b.V4, 65001)
	s.apply(desired(t, snap))
	return s, bird, snap
}
