package felix_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestGivenAddressesAreAnnouncedInsidePools(t *testing.T) {
	lent := model.Endpoint{Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.1")}}
	given := model.Endpoint{Addresses: []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("192.0.2.2")}}
	given.WithoutIPAM = "k8s-pod-network"
	pools := []model.Pool{{CIDR: netip.MustParsePrefix("10.9.0.0/16")}, {CIDR: netip.MustParsePrefix("fd00::/48")}}
	for want, pools := range map[string][]model.Pool{"[]": nil, "[10.9.0.2/32]": pools[:1], "[10.9.0.2/32 fd00::2/128]": pools} {
		if got := fmt.Sprint(felix.GivenInPools([]model.Endpoint{lent, given}, pools)); got != want {
			t.Errorf("announced %s, want %s", got, want)
		}
	}
}
