package gobgp

import (
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
