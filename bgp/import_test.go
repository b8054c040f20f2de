package bgp_test

import (
	"net/netip"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// What a node of the cluster may tell another, and what only a router may.
func TestWhatNodesMayTell(t *testing.T) {
	s := cluster()
	s.Pools = append(s.Pools, model.Pool{Name: "six", CIDR: prefix("fd44::/48")}, model.Pool{Name: "clash", CIDR: prefix("10.0.2.0/24")},
		model.Pool{Name: "off", CIDR: prefix("10.123.0.0/16"), Disabled: true})
	s.Nodes[1].PodCIDRs = []netip.Prefix{prefix("10.60.1.0/24")}
	s.Nodes[2].PodCIDRs = []netip.Prefix{prefix("10.60.0.0/24"), prefix("fd60::/64")}
	s.Nodes[2].IPv6 = prefix("fd00:2::a/64")
	s.Nodes[0].IPv6 = prefix("fd00:2::1/64")
	s.BGP[0].ServiceClusterIPs, s.BGP[0].ServiceExternalIPs = []netip.Prefix{prefix("10.96.0.0/12")}, []netip.Prefix{prefix("198.51.100.7/32")}
	s.BGP[0].PrefixAdvertisements = []model.PrefixAdvertisement{{CIDR: prefix("0.0.0.0/0")}, {CIDR: prefix("192.0.2.0/24")}}
	s.Filters = []model.BGPFilter{{Name: "f", ExportV4: []model.FilterRule{
		{CIDR: prefix("0.0.0.0/0"), MatchOperator: "Equal", Accept: true},
		{CIDR: prefix("172.30.0.0/16"), MatchOperator: "In", Accept: true},
		{CIDR: prefix("172.31.0.0/16"), MatchOperator: "In"},
		{CIDR: prefix("0.0.0.0/0"), MatchOperator: "In", Accept: true},
	}}, {Name: "unused", ExportV4: []model.FilterRule{{CIDR: prefix("172.29.0.0/16"), MatchOperator: "In", Accept: true}}}}
	s.Peers = []model.BGPPeer{
		tor(),
		{Name: "in", PeerIP: addr("10.0.2.10"), ASN: 64512, Filters: []string{"f"}, NodeSelector: sel(t, "rack == 'r1'")},
	}
	c, _ := bgp.Desired(s, "n1")
	for p, ok := range map[string]bool{
		"10.244.9.0/26": true, "10.244.9.9/32": true, "fd44::40/122": true, "10.123.4.0/24": true,
		"10.60.0.0/24": true, "10.60.1.0/24": true, "10.60.2.0/24": false, "fd60::/64": true,
		"10.96.0.0/12": true, "10.96.3.4/32": true, "198.51.100.7/32": true, "198.51.100.0/24": false,
		"192.0.2.128/25": true, "172.30.1.0/24": true, "172.31.1.0/24": false, "172.29.0.0/16": false,
		"0.0.0.0/0": true, // as the filter of a BGPPeer lets it out
		"0.0.0.0/1": false, "128.0.0.0/1": false, "::/0": false, "8000::/1": false, "::/1": false,
		"10.0.0.0/8": false, "10.0.1.0/24": false, "10.0.1.254/32": false, "203.0.113.9/32": false,
		"10.0.2.10/32": false, "10.0.1.2/32": false, "fd00:2::a/128": false, // nodes, one of them in a pool
		"10.0.2.11/32": true, // in a pool that should not be there
		"127.0.0.0/8":  false,
	} {
		for _, peer := range c.Peers {
			policy, _ := c.Policy(bgp.Import, peer.Import)
			action, from := policy.Decide(bgp.Route{Prefix: prefix(p), NextHop: peer.Address, External: peer.External(), LocalPref: bgp.LocalPref})
			want := ok
			if !peer.InCluster { // a router may announce what it likes, but for martians and the node itself
				want = p != "127.0.0.0/8"
			}
			if (action == bgp.Accept) != want {
				t.Errorf("%s from %s: %s by %q", p, peer.Address, action, from)
			}
		}
	}
}
