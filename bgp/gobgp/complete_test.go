package gobgp

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
)

// A peer's first table is complete when its End-of-RIB has come and no path is on its
// way any more, or when a peer that sends no marker has sent nothing for a while: on a
// busy node paths come long after the session.
func TestFirstTableIsComplete(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	ended := map[packet.Family]bool{packet.RF_IPv4_UC: true}
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
	} {
		c.v.config.Families = []bgp.Family{bgp.IPv4}
		if got := c.v.complete(now); got != c.want {
			t.Errorf("%s: complete %v, want %v", c.name, got, c.want)
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
		c.peer.config = bgp.Peer{Families: []bgp.Family{bgp.IPv4}, RestartTime: restart, NoRestart: c.noGR}
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
