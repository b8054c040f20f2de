package gobgp

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// A peer's first table is complete when its End-of-RIB has come and no path is on its
// way any more, or when a peer that sends no marker has sent nothing for a while: on a
// busy node paths come long after the session.
func TestFirstTableIsComplete(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	ended, ended6 := map[packet.Family]bool{packet.RF_IPv4_UC: true}, map[packet.Family]bool{packet.RF_IPv6_UC: true}
	for _, c := range []struct {
		name string
		v    session
		want bool
	}{
		{"not established", session{state: packet.BGP_FSM_OPENCONFIRM, ended: ended}, false},
		{"marker, no path", session{state: packet.BGP_FSM_ESTABLISHED, ended: ended, since: now}, true},
		{"marker, paths behind it", session{state: packet.BGP_FSM_ESTABLISHED, ended: ended, since: ago(time.Minute), lastPath: ago(100 * time.Millisecond)}, false},
		{"marker, paths are in", session{state: packet.BGP_FSM_ESTABLISHED, ended: ended, since: ago(time.Second), lastPath: ago(overtakePeriod)}, true},
		{"no marker, just up", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(time.Second)}, false},
		{"no marker, silent", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(silentPeriod)}, true},
		{"no marker, still sends", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(time.Minute), lastPath: ago(time.Second)}, false},
		{"no marker, has sent", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(time.Minute), lastPath: ago(silentPeriod)}, true},
		{"marker promised, silent for long", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(time.Minute), promised: ended}, false},
		{"marker promised, has sent", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(time.Minute), lastPath: ago(silentPeriod), promised: ended}, false},
		{"marker promised of another family, silent", session{state: packet.BGP_FSM_ESTABLISHED, since: ago(silentPeriod), promised: ended6}, true},
	} {
		c.v.config.Families = []model.Family{model.IPv4}
		if got := c.v.complete(now); got != c.want {
			t.Errorf("%s: complete %v, want %v", c.name, got, c.want)
		}
	}
}

// What a peer promises by its capabilities.
func TestMarkersThatWillCome(t *testing.T) {
	restart := packet.NewCapGracefulRestart(false, false, 0, nil) // keeps nothing, and says when it is done
	v4, v6 := packet.NewCapMultiProtocol(packet.RF_IPv4_UC), packet.NewCapMultiProtocol(packet.RF_IPv6_UC)
	for _, c := range []struct {
		name         string
		capabilities []packet.ParameterCapabilityInterface
		v4, v6       bool
	}{
		{"none", nil, false, false},
		{"no graceful restart", []packet.ParameterCapabilityInterface{v4, v6}, false, false},
		{"graceful restart alone", []packet.ParameterCapabilityInterface{restart}, true, false},
		{"both families", []packet.ParameterCapabilityInterface{restart, v4, v6}, true, true},
		{"IPv6 alone", []packet.ParameterCapabilityInterface{v6, restart}, false, true},
	} {
		if got := promisedBy(c.capabilities); got[packet.RF_IPv4_UC] != c.v4 || got[packet.RF_IPv6_UC] != c.v6 {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A peer whose table has not come is waited for as long as its restart may take, from the
// beginning or from when it left; who waits longer than exchangeWait for it does no
// harm by ending.
func TestFirstTableOfOneWhoRestarts(t *testing.T) {
	const restart = 2 * time.Minute
	begun := time.Now()
	at := begun.Add
	up := &session{state: packet.BGP_FSM_ESTABLISHED, ended: map[packet.Family]bool{packet.RF_IPv4_UC: true}}
	for _, c := range []struct {
		name    string
		peer    session
		noGR    bool
		over    time.Duration // when the exchange is
		harmful time.Duration // until when
	}{
		{"never came", session{}, false, restart, exchangeWait},
		{"left again", session{left: at(5 * time.Second)}, false, restart + 5*time.Second, exchangeWait},
		{"left before the exchange began", session{left: at(-time.Second)}, false, restart, exchangeWait},
		{"no graceful restart", session{}, true, exchangeWait, exchangeWait},
		{"has sent it", *up, false, 0, 0},
	} {
		s := newSessions(slog.New(slog.DiscardHandler), func() {})
		c.peer.config = bgp.Peer{Families: []model.Family{model.IPv4}, RestartTime: restart, NoRestart: c.noGR}
		s.peers[netip.MustParseAddr("10.0.0.1")] = up
		s.peers[netip.MustParseAddr("10.0.0.2")] = &c.peer
		s.start(begun)
		for d := time.Duration(0); d <= c.over+time.Second; d += time.Second {
			if s.tick(at(d)); s.isConverged() != (d >= c.over) {
				t.Errorf("%s: after %s it is over: %v", c.name, d, s.isConverged())
			}
			if got := s.awaited(at(d)) != ""; got != (d < c.harmful) {
				t.Errorf("%s: after %s something is awaited: %v", c.name, d, got)
			}
		}
	}
}

// A peer that ends its session by a NOTIFICATION in the middle of its first table is
// waited for like one that restarts: what it told is no table, and what it kept is in
// the kernel alone.
func TestNotificationInTheFirstTable(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b := n.Host(1), n.Host(66)
	s := startSpeaker(t, a, "restarting")
	s.apply(desired(t, withPeer(clusterOf(a), b.V4, 65666)))
	says := func(messages ...string) {
		b.Start("env", hostileEnv+"=send "+strings.Join(messages, " "), os.Args[0])
	}
	part := update(t, externalDefaults, tried)
	for _, c := range []struct {
		name          string
		code, subcode byte
	}{
		{"Cease, administrative reset", packet.BGP_ERROR_CEASE, packet.BGP_ERROR_SUB_ADMINISTRATIVE_RESET},
		{"Cease, out of resources", packet.BGP_ERROR_CEASE, packet.BGP_ERROR_SUB_OUT_OF_RESOURCES},
		{"hold timer expired", packet.BGP_ERROR_HOLD_TIMER_EXPIRED, 0},
	} {
		end := hex.EncodeToString(frame(packet.BGP_MSG_NOTIFICATION, []byte{c.code, c.subcode}))
		flaps := s.state().Peers[0].Flaps
		says(part, end)
		bgptest.Eventually(t, c.name+" has ended a session", func() string {
			if now := s.state().Peers[0].Flaps; now <= flaps {
				return s.peers()
			}
			return ""
		})
		if s.state().Converged {
			t.Fatalf("%s: the first exchange counts as over", c.name)
		}
	}
	const ends, ends6 = "00000000", "00000006" + "800f03000201"
	all := []string{part, update(t, externalDefaults, marker)}
	for _, text := range []string{ends, ends6} {
		m, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, hex.EncodeToString(frame(packet.BGP_MSG_UPDATE, m)))
	}
	says(all...)
	bgptest.Eventually(t, "the exchange is over with the whole table", func() string {
		if got := s.state(); !got.Converged || len(got.Learned) != 2 {
			return fmt.Sprintf("over: %v, learned: %v", got.Converged, got.Learned)
		}
		return ""
	})
}
