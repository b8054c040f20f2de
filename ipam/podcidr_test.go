package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

func TestPodCIDRs(t *testing.T) {
	c := ipam.NewPodCIDRs()
	both := []ipam.Family{ipam.IPv4, ipam.IPv6}
	if _, err := c.Assign("h", both); ipam.CodeOf(err) != ipam.CodeNoPool {
		t.Errorf("no prefix: %v", err)
	}
	c.SetPrefixes([]netip.Prefix{prefix("10.0.0.0/29"), prefix("fd00::/125")})
	c.Adopt("old", []netip.Addr{addr("10.0.0.3")})
	c.Adopt("thief", []netip.Addr{addr("10.0.0.3")})
	got, err := c.Assign("h", both)
	if want := []netip.Addr{addr("10.0.0.2"), addr("fd00::2")}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if again, err := c.Assign("h", both); err != nil || !slices.Equal(again, got) {
		t.Errorf("again: %v, %v", again, err)
	}
	for i, want := range []string{"10.0.0.4", "10.0.0.5", "10.0.0.6"} {
		if got, err := c.Assign(fmt.Sprint(i), both[:1]); err != nil || got[0] != addr(want) {
			t.Errorf("got %v, %v, want %s", got, err, want)
		}
	}
	if _, err := c.Assign("over", []ipam.Family{ipam.IPv6, ipam.IPv4}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("exhausted: %v", err)
	}
	if a := c.Addresses("over"); len(a) != 0 {
		t.Errorf("half an assignment was kept: %v", a)
	}
	c.Release("old")
	c.Release("never seen")
	if got, err := c.Assign("new", both); err != nil || got[0] != addr("10.0.0.3") || got[1] == addr("fd00::2") {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestTunnelAddresses(t *testing.T) {
	gpu, err := selector.Parse("has(gpu)")
	if err != nil {
		t.Fatal(err)
	}
	plain, ipip, vxlan, six := pool("plain", "10.0.0.0/24", 26), pool("i", "10.1.0.0/24", 26), pool("v", "10.2.0.0/24", 26), pool("six", "fd00::/64", 122)
	ipip.IPIP, vxlan.VXLAN, six.VXLAN = model.EncapAlways, model.EncapCrossSubnet, model.EncapAlways
	other := ipip
	other.Name, other.CIDR, other.NodeSelector = "a", prefix("10.3.0.0/24"), gpu
	pools := []model.Pool{plain, vxlan, other, ipip, six}
	self := model.Node{Name: "n1"}
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pools...)
	for tunnel, want := range map[ipam.Tunnel]struct{ pool, kind, handle string }{
		ipam.TunnelIPIP:    {"10.1.0.0/24", "ipipTunnelAddress", "ipip-tunnel-addr-n1"},
		ipam.TunnelVXLAN:   {"10.2.0.0/24", "vxlanTunnelAddress", "vxlan-tunnel-addr-n1"},
		ipam.TunnelVXLANv6: {"fd00::/64", "vxlanV6TunnelAddress", "vxlan-v6-tunnel-addr-n1"},
	} {
		r, ok := tunnel.Request(pools, self)
		if !ok || r.Handle != want.handle || r.Attrs["type"] != want.kind {
			t.Errorf("%s: %+v, %v", tunnel, r, ok)
		}
		got, err := n.Assign(t.Context(), r)
		if err != nil || len(got) != 1 || !prefix(want.pool).Contains(got[0]) {
			t.Fatalf("%s: %v, %v", tunnel, got, err)
		}
		if !tunnel.Fits(got[0], pools, self) || tunnel.Fits(addr("10.0.0.1"), pools, self) || tunnel.Fits(got[0], pools[:1], self) {
			t.Errorf("%s: Fits", tunnel)
		}
		if _, ok := tunnel.Request(pools[:1], self); ok {
			t.Errorf("%s: an address is asked for without need", tunnel)
		}
	}
	sound(t, s, 3)
}

// TestRestartFindsBorrowed: a node has borrowed, restarts, and has room of its
// own by then: the handle leads back to the borrowed address, and what was
// assigned beside it is given back.
func TestRestartFindsBorrowed(t *testing.T) {
	s := ipamtest.New()
	full, roomy := pool("z", "10.0.0.0/30", 30), pool("a", "10.1.0.0/24", 26)
	start(t, s, "n1", nil, full).assign(t, "x")
	n2 := start(t, s, "n2", nil, full)
	got := n2.assign(t, "y")
	n2.stop()
	n2 = start(t, s, "n2", nil, full, roomy)
	if again := n2.assign(t, "y"); again != got {
		t.Errorf("got %s, after the restart %s", got, again)
	}
	if b := n2.Borrowed(); len(b) != 1 {
		t.Errorf("borrowed: %v", b)
	}
	sound(t, s, 2)
	n2.stop()
	n2 = start(t, s, "n2", nil, full, roomy)
	if err := n2.ReleaseAddr(t.Context(), "y", got); err != nil {
		t.Fatal(err)
	}
	sound(t, s, 1)
}

// TestFailedGrowthKeepsTheRest: a handle that asks for more than there is keeps
// what it had.
func TestFailedGrowthKeepsTheRest(t *testing.T) {
	s := ipamtest.New()
	n := start(t, s, "n1", nil, pool("p", "10.0.0.0/30", 31))
	first := n.assign(t, "h")
	if _, err := n.Assign(t.Context(), ipam.Request{Handle: "h", V4: 9}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("got %v", err)
	}
	sound(t, s, 1)
	got, err := n.Assign(t.Context(), ipam.Request{Handle: "h", V4: 4})
	if err != nil || len(got) != 4 || !slices.Contains(got, first) {
		t.Errorf("got %v, %v", got, err)
	}
	sound(t, s, 4)
}
