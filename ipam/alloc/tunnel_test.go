package alloc_test

import (
	"testing"

	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

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
	for tunnel, want := range map[alloc.Tunnel]struct{ pool, kind, handle string }{
		alloc.TunnelIPIP:    {"10.1.0.0/24", "ipipTunnelAddress", "ipip-tunnel-addr-n1"},
		alloc.TunnelVXLAN:   {"10.2.0.0/24", "vxlanTunnelAddress", "vxlan-tunnel-addr-n1"},
		alloc.TunnelVXLANv6: {"fd00::/64", "vxlanV6TunnelAddress", "vxlan-v6-tunnel-addr-n1"},
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
