package ipam_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestPodCIDRs(t *testing.T) {
	c := ipam.NewPodCIDRs()
	both := model.Families[:]
	if _, err := c.Assign("h", both); ipam.CodeOf(err) != ipam.CodeNoPool {
		t.Errorf("no prefix: %v", err)
	}
	c.SetPrefixes("node1", []netip.Prefix{prefix("10.0.0.0/29"), prefix("fd00::/125")})
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
	_, err = c.Assign("over", []model.Family{model.IPv6, model.IPv4})
	if ipam.CodeOf(err) != ipam.CodePoolExhausted || !strings.Contains(err.Error(), "node1") || !strings.Contains(err.Error(), "spec.podCIDRs") {
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
