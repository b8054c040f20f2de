package app

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestGivenAddressesAreNotAdopted(t *testing.T) {
	lent, given := endpoint("lent", "cali1", "10.9.0.1"), endpoint("given", "cali2", "10.9.0.2", "fd00::2")
	given.WithoutIPAM = "k8s-pod-network"
	a := &agent{alloc: alloc.New("n1", nil), endpoints: newEndpoints([]model.Endpoint{lent, given}), podCIDRs: newPodCIDRs(), in: &inputs{}}
	a.tellLive()
	if got := fmt.Sprint(a.alloc.Borrowed()); got != "[10.9.0.1/32]" {
		t.Errorf("borrowed %s, want the one address that IPAM gave", got)
	}
	if got := a.alloc.Addresses(model.HandlePrefix + "given"); len(got) != 0 {
		t.Errorf("a handle holds %v, which IPAM did not give", got)
	}
	if pods := a.endpoints.List(); len(pods) != 2 || len(pods[1].Addresses) != 2 {
		t.Errorf("the data plane has %+v, want both pods with all addresses", pods)
	}
}

// TestLiveAddresses: IPAM is told of what it gave, and of nothing else.
func TestLiveAddresses(t *testing.T) {
	lent, given, prefixed := endpoint("lent", "cali1", "10.9.0.1", "fd00::1"), endpoint("given", "cali2", "10.9.0.2"), endpoint("prefixed", "cali3", "10.1.0.2")
	given.WithoutIPAM, lent.Namespace, lent.Pod = "k8s-pod-network", "default", "a"
	live := alloc.LivePods([]model.Endpoint{lent, given, prefixed}, []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")})
	live = append(live, liveTunnels("n1", felix.TunnelAddresses{VXLAN: netip.MustParseAddr("10.9.0.9")})...)
	var got []string
	for _, l := range live {
		got = append(got, fmt.Sprintf("%s %s %v", l.Addr, l.Handle, l.Attrs))
	}
	want := []string{
		"10.9.0.1 k8s-pod-network.lent map[namespace:default pod:a]",
		"fd00::1 k8s-pod-network.lent map[namespace:default pod:a]",
		"10.9.0.9 vxlan-tunnel-addr-n1 map[type:vxlanTunnelAddress]",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

// TestEndpointsAreTold: whoever changes the set goes on when it has been told.
func TestEndpointsAreTold(t *testing.T) {
	e := newEndpoints(nil)
	announced := -1
	e.onChange = func() { announced = len(e.List()) }
	if e.Put(endpoint("a", "cali1", "10.9.0.1")); announced != 1 {
		t.Errorf("after Put %d are told", announced)
	}
	if e.Delete("a", "eth0"); announced != 0 {
		t.Errorf("after Delete %d are told", announced)
	}
}
