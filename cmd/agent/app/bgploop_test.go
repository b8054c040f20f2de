package app

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

func TestAnnouncedWithinBlock(t *testing.T) {
	var routes []model.Learned
	for _, p := range []string{"0.0.0.0/0", "10.0.0.0/16", "10.0.0.64/26", "10.0.1.7/32", "10.0.2.0/25"} {
		routes = append(routes, model.Learned{Prefix: netip.MustParsePrefix(p)})
	}
	for block, want := range map[string]bool{
		"10.0.0.0/26": false, "10.0.0.64/26": true, "10.0.0.128/26": false, // the summary of a router is no block
		"10.0.1.0/26": true,  // an address that a pod has borrowed
		"10.0.2.0/26": false, // half of a larger one, which has the same first address
		"10.0.3.0/26": false, "fd00::/122": false,
	} {
		if got := within(routes, netip.MustParsePrefix(block)); got != want {
			t.Errorf("%s: announced within is %v, want %v", block, got, want)
		}
	}
}
