package felix

import (
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// Peers on a loopback are reached by the gateway that their BGPPeer names, and
// so is what they announce with that loopback as next hop.
func TestPeerRoutes(t *testing.T) {
	in := base()
	in.PeerRoutes = []PeerRoute{
		{ip("192.0.2.1"), ip("10.1.0.254")}, {ip("fd99::1"), ip("fd01::254")},
		{ip("192.0.2.2"), ip("172.16.0.1")},                                    // by way of the default gateway, as any address would be
		{ip("10.1.0.1"), ip("10.1.0.254")}, {ip("192.0.2.4"), ip("192.0.2.4")}, // nonsense
		{ip("fd99::2"), ip("fe80::7")}, // on no link in particular
	}
	in.Learned = []model.Learned{
		learned("10.65.2.0/26", "192.0.2.1"),
		learned("10.65.3.0/26", "10.65.2.1"), // by way of the one before
		learned("192.0.2.1/32", "10.1.0.2"),  // the peer's own, which would lead to the peer by the peer
	}
	state, problems := Desired(in)
	got := map[string]bool{}
	for _, r := range state.Routes {
		got[r.String()] = true
	}
	for _, want := range []string{
		"192.0.2.1 via 10.1.0.254 dev eth0 proto 109 metric 1024",
		"192.0.2.2 via 10.1.0.254 dev eth0 proto 109 metric 1024",
		"fd99::1 via fd01::254 dev eth0 proto 109 metric 1024",
		"10.65.2.0/26 via 10.1.0.254 dev eth0 proto 109 metric 1024",
		"10.65.3.0/26 via 10.1.0.254 dev eth0 proto 109 metric 1024",
	} {
		if !got[want] {
			t.Errorf("no %q in:\n%s", want, state)
		}
	}
	plain, _ := Desired(base())
	if extra := len(state.Routes) - len(plain.Routes); extra != 5-4 { // five more, four learned ones fewer
		t.Errorf("%d routes more than without, in:\n%s", extra, state)
	}
	if !slices.ContainsFunc(problems, func(p model.Problem) bool {
		return p.Reason == "NextHopUnreachable" && p.Object == routeRef(pfx("fd99::2/128"))
	}) {
		t.Errorf("the gateway that is nowhere is no problem: %v", problems)
	}
	if !slices.IsSortedFunc(state.Routes, Route.Compare) {
		t.Error("routes are not sorted")
	}
}
