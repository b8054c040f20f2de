package bgp_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// The addresses of a service with externalTrafficPolicy Local need an endpoint of
// their own family here; the last one anywhere counts until it serves no more.
func TestServiceEndpoints(t *testing.T) {
	here, elsewhere := model.Endpoints{Here: true, Anywhere: true}, model.Endpoints{Anywhere: true}
	last, lastElsewhere := model.Endpoints{LastHere: true, LastAnywhere: true}, model.Endpoints{LastAnywhere: true}
	both := model.Endpoints{LastHere: true, LastAnywhere: true, Anywhere: true}
	for name, tc := range map[string]struct {
		four, six model.Endpoints
		shared    bool // the other policy, without aggregation
		want      string
	}{
		"nowhere":                   {},
		"one family":                {six: here, want: "fd72::1"},
		"the other":                 {four: here, six: elsewhere, want: "172.20.0.1"},
		"both":                      {four: here, six: here, want: "172.20.0.1 fd72::1"},
		"the last one ends here":    {four: last, want: "172.20.0.1 ends"},
		"elsewhere":                 {four: lastElsewhere},
		"here, and one is ready":    {four: both},
		"ready and ending here":     {four: model.Endpoints{Here: true, Anywhere: true, LastHere: true, LastAnywhere: true}, want: "172.20.0.1"},
		"each family by itself":     {four: both, six: last, want: "fd72::1 ends"},
		"shared":                    {four: elsewhere, shared: true, want: "172.20.0.1"},
		"shared, the last one ends": {six: lastElsewhere, shared: true, want: "fd72::1"},
	} {
		s := cluster()
		s.Nodes[0] = dual(s.Nodes[0])
		s.Blocks = nil
		s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix("172.20.0.0/16"), prefix("fd72::/64")}
		s.BGP[0].NoLBAggregation = true
		s.Services = []model.Service{{Name: "web", LocalTraffic: !tc.shared, LoadBalancerIPs: addrs("172.20.0.1", "fd72::1"), IPv4: tc.four, IPv6: tc.six}}
		c, _ := bgp.Desired(s, "n1")
		var got []string
		for _, p := range c.Paths {
			got = append(got, p.Prefix.Addr().String())
			if p.LastResort && p.LocalPref == 0 {
				got = append(got, "ends")
			}
		}
		if g := strings.Join(got, " "); g != tc.want {
			t.Errorf("%s: %q, want %q", name, g, tc.want)
		}
	}
}

// TestAddressesOfPools: an address out of a pool for Services is announced like any
// other, where the ranges of load balancers have it, and not without them; the pool
// itself is nothing that pods' rules speak of.
func TestAddressesOfPools(t *testing.T) {
	here := model.Endpoints{Here: true, Anywhere: true}
	for ranges, want := range map[string]string{"": "", "203.0.113.0/24": "203.0.113.0/24 203.0.113.5/32", "203.0.113.5/32": "203.0.113.5/32", "198.51.100.0/24": "198.51.100.0/24"} {
		s := cluster()
		s.Blocks = nil
		s.Pools = append(s.Pools, model.Pool{Name: "lb", CIDR: prefix("203.0.113.0/24"), BlockSize: 28, AllowedUses: []model.Use{"LoadBalancer"}})
		if ranges != "" {
			s.BGP[0].ServiceLoadBalancers = []netip.Prefix{prefix(ranges)}
		}
		s.Services = []model.Service{{Name: "web", LocalTraffic: true, LoadBalancerIPs: addrs("203.0.113.5"), IPv4: here}}
		c, problems := bgp.Desired(s, "n1")
		var got []string
		for _, p := range c.Paths {
			got = append(got, p.Prefix.String())
		}
		if g := strings.Join(got, " "); g != want || len(problems) > 0 {
			t.Errorf("with %q: %q, want %q; %v", ranges, g, want, problems)
		}
	}
}
