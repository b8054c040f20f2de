package alloc_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestOrphans(t *testing.T) {
	given := func(at, handle, pod string) ipam.Allocation {
		a := ipam.Allocation{Addr: addr(at)}
		a.Handle = handle
		if pod != "" {
			a.Owner = map[string]string{"pod": pod, "namespace": "default"}
		}
		return a
	}
	allocations := []ipam.Allocation{
		given("10.0.0.1", "wired", "a"),
		given("10.0.0.2", "known", "b"),
		given("10.0.0.3", "lost", "c"),
		given("10.0.0.4", "finished", "d"),
		given("10.0.0.5", "ipip-tunnel-addr-n1", ""),
		given("10.0.0.6", "half", "e"), given("fd00::6", "half", "e"),
		given("10.0.0.7", "twice-lost", "f"), given("fd00::7", "twice-lost", "f"),
	}
	used := map[string]bool{"10.0.0.1": true, "10.0.0.2": true, "fd00::6": true}
	got := alloc.Orphans(allocations, used)
	if want := []string{"lost", "finished", "twice-lost"}; !slices.Equal(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestPodCIDRsInUse(t *testing.T) {
	node := []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:1::/64")}
	pool := model.Pool{CIDR: prefix("10.244.0.0/16")}
	off := pool
	off.Disabled = true
	for name, c := range map[string]struct {
		pools  []model.Pool
		blocks []model.Block
		pod    string
		want   bool
	}{
		"a pod of another range":             {nil, nil, "10.9.0.1", false},
		"a pod of the node's prefix":         {nil, nil, "10.244.1.7", true},
		"of the other family":                {nil, nil, "fd00:1::7", true},
		"a pool for masquerading alone":      {[]model.Pool{off}, nil, "10.244.1.7", true},
		"a pool that may have lent it":       {[]model.Pool{pool}, nil, "10.244.1.7", false},
		"a block of a pool that is gone now": {nil, []model.Block{{CIDR: prefix("10.244.1.0/26")}}, "10.244.1.7", false},
	} {
		if got := alloc.UsesPodCIDRs(node, c.pools, c.blocks, []model.Endpoint{{Addresses: []netip.Addr{addr(c.pod)}}}); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	given := model.Endpoint{Addresses: []netip.Addr{addr("10.244.1.7")}, WithoutIPAM: "k8s-pod-network"}
	if alloc.UsesPodCIDRs(node, nil, nil, []model.Endpoint{given}) {
		t.Error("the node's prefix is in use by an address that it did not give")
	}
}
