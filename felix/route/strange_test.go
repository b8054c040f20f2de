package route

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
)

// TestRoutesOfOthersThatAreNamedGo removes exactly those, and puts ours in the
// place of one at once.
func TestRoutesOfOthersThatAreNamedGo(t *testing.T) {
	l := newLab(t)
	l.node.IP("route add 10.65.0.5/32 dev eth1 proto static")
	l.node.IP("route add 10.65.0.5/32 dev eth1 proto bird metric 1024")
	l.node.IP("route add 10.65.0.5/32 dev eth0 proto static metric 7")
	l.node.IP("-6 route add fd65::5/128 dev eth1 proto static metric 5")
	r := open(t, l)
	external := func(prefix string, metric, protocol int) felix.ExternalRoute {
		return felix.ExternalRoute{Prefix: netip.MustParsePrefix(prefix), Metric: metric, Protocol: protocol, Link: l.links["eth1"], Device: "eth1"}
	}
	pod := unicast("10.65.0.5/32", l.hop("", "eth1"))
	pod.LinkScope = true
	s := state(false, pod)
	s.External = []felix.ExternalRoute{
		external("10.65.0.5/32", 0, 4), external("10.65.0.5/32", 1024, 12), external("fd65::5/128", 5, 4),
		external("10.65.0.9/32", 0, 4), // gone already
	}
	if err := r.Apply(t.Context(), s); err == nil || !strings.Contains(err.Error(), "somebody else") {
		t.Errorf("before everything was heard nobody's route goes: %v", err)
	}
	s.Prune = true
	apply(t, r, s)
	if got := strings.Fields(l.node.IP("route show 10.65.0.5/32")); strings.Join(got, " ") != "10.65.0.5 dev eth0 proto static scope link metric 7 10.65.0.5 dev eth1 proto 109 scope link metric 1024" {
		t.Errorf("got %q", got)
	}
	if got := l.node.IP("-6 route show fd65::5/128"); got != "" {
		t.Errorf("still there: %s", got)
	}
}
