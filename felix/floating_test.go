package felix_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestFloatingIPs has a pod reached by addresses beside its own: from another
// node's pod, from its own node, from itself, and no more when they are taken
// away.
func TestFloatingIPs(t *testing.T) {
	c := newCluster(t)
	const floating4, floating6 = "10.65.99.9", "fd65::99:9"
	// What BGP tells the rest of the network.
	c.router.IP("route add " + floating4 + "/32 via 10.1.0.1")
	c.router.IP("-6 route add " + floating6 + "/128 via fd01::1")
	c.a.set(func(in *felix.Input) {
		in.Snapshot.Pools = append(in.Snapshot.Pools,
			model.Pool{Name: "f4", CIDR: pfx("10.65.99.0/24"), Manual: true}, model.Pool{Name: "f6", CIDR: pfx("fd65::99:0/120"), Manual: true})
	})
	give := func(enabled bool, addrs ...string) {
		c.a.set(func(in *felix.Input) {
			in.Snapshot.Felix = []model.FelixConfiguration{{Name: "default", FloatingIPs: enabled}}
			e := in.Endpoints[0]
			e.FloatingIPs = nil
			for _, a := range addrs {
				e.FloatingIPs = append(e.FloatingIPs, netip.MustParseAddr(a))
			}
			in.Endpoints = []model.Endpoint{e}
		})
		nstest.Eventually(t, "node a has it", func() bool { return c.a.settled() })
	}
	answers := func(from *nstest.NS, to string) bool {
		_, err := from.Try("ping", "-c", "1", "-W", "1", to)
		return err == nil
	}
	for _, to := range []string{floating4, floating6} {
		if answers(c.b.podNS, to) {
			t.Fatalf("%s answers before it is anybody's: the test proves nothing", to)
		}
	}
	give(true, floating4, floating6)
	for name, from := range map[string]*nstest.NS{"another node's pod": c.b.podNS, "the router": c.router, "its own node": c.a.ns, "the pod itself": c.a.podNS} {
		for _, to := range []string{floating4, floating6} {
			if !answers(from, to) {
				t.Errorf("%s is not answered by %s", name, to)
			}
		}
	}
	if got := c.a.ns.IP("route show proto 109 " + floating4); !strings.Contains(got, "scope link") {
		t.Errorf("no route says where the floating address is: %s", got)
	}
	c.b.podNS.Run("ping", "-c", "1", "-W", "5", "10.65.1.1") // its own address goes on
	give(false, floating4, floating6)
	if answers(c.router, floating4) {
		t.Error("a floating address answers although they are disabled")
	}
	give(true)
	if answers(c.router, floating4) {
		t.Error("a floating address that was taken away answers")
	}
}
