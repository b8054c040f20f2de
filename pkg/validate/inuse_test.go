package validate

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestPoolsOfWhatOthersUse: what is excluded from a pool, and what its condition
// says.
func TestPoolsOfWhatOthersUse(t *testing.T) {
	p := netip.MustParsePrefix
	snap := model.Snapshot{
		Nodes: []model.Node{
			{Name: "n1", IPv4: p("10.1.1.11/24"), IPv6: p("fd00:1::11/64")},
			{Name: "n2", IPv4: p("10.2.0.9/32")}, // on lo
		},
		ServiceCIDRs: []model.ServiceCIDR{{Name: "kubernetes", CIDR: p("10.96.0.0/16")}},
		BGP:          []model.BGPConfiguration{{Name: "default", ServiceLoadBalancers: []netip.Prefix{p("198.51.100.0/24")}}},
		Peers:        []model.BGPPeer{{Name: "tor", PeerIP: netip.MustParseAddr("10.3.0.1")}},
	}
	for _, c := range []struct {
		cidr        string
		uses        []model.Use
		annotated   bool
		allocatable bool
		reason      string
		excluded    string
		names       string
	}{
		{cidr: "10.244.0.0/16", allocatable: true, reason: "OK"},
		{cidr: "10.1.1.0/24", reason: "OverlapsNode", excluded: "10.1.1.0/24", names: "Node n1"},
		{cidr: "10.1.1.128/25", reason: "OverlapsNode", excluded: "10.1.1.0/24", names: "10.1.1.0/24 of Node n1"},
		{cidr: "10.1.1.0/24", annotated: true, allocatable: true, reason: "OverlapsNode", excluded: "10.1.1.11/32", names: "10.1.1.11/32 of Node n1"},
		{cidr: "10.0.0.0/8", allocatable: true, reason: "OverlapsNode", excluded: "10.1.1.0/24 10.2.0.9/32 10.96.0.0/16", names: "ServiceCIDR kubernetes (spec.cidrs)"},
		{cidr: "fd00:1::/48", allocatable: true, reason: "OverlapsNode", excluded: "fd00:1::/64", names: "Node n1"},
		{cidr: "10.96.0.0/12", allocatable: true, reason: "OverlapsServiceRange", excluded: "10.96.0.0/16", names: "ServiceCIDR kubernetes"},
		{cidr: "10.96.128.0/17", reason: "OverlapsServiceRange", excluded: "10.96.0.0/16", names: "ServiceCIDR kubernetes"},
		{cidr: "198.51.100.0/24", reason: "OverlapsServiceRange", excluded: "198.51.100.0/24", names: "BGPConfiguration default (spec.serviceLoadBalancerIPs)"},
		{cidr: "198.51.100.0/24", uses: []model.Use{"LoadBalancer"}, allocatable: true, reason: "OK", names: "Services of type LoadBalancer, to no pod"},
		{cidr: "10.3.0.0/24", allocatable: true, reason: "OverlapsBGPPeer", names: "BGPPeer tor (spec.peerIP)"},
	} {
		pool := model.Pool{Name: "x", CIDR: p(c.cidr), AllowedUses: c.uses}
		if c.annotated {
			pool.Annotations = map[string]string{AnnotationInNodeSubnet: "Allow"}
		}
		hit := Overlapping(pool, AllInUse(snap))
		var excluded []string
		for _, e := range Exclude(hit) {
			excluded = append(excluded, e.String())
		}
		v := Pools([]Pool{{Pool: pool, InUse: hit}})["x"]
		if got := strings.Join(excluded, " "); got != c.excluded || v.Allocatable != c.allocatable || v.Reason != c.reason || !strings.Contains(v.Message, c.names) {
			t.Errorf("%s %v: excluded %q, %+v", c.cidr, c.uses, got, v)
		}
	}
}

// TestPeersAreKeptBack: a peer may be a pod, which asks for its address.
func TestPeersAreKeptBack(t *testing.T) {
	snap := model.Snapshot{Peers: []model.BGPPeer{{Name: "pod", PeerIP: netip.MustParseAddr("10.244.0.5")}}}
	hit := Overlapping(model.Pool{CIDR: netip.MustParsePrefix("10.244.0.0/16")}, AllInUse(snap))
	if got := Peers(hit); !slices.Equal(got, []netip.Prefix{netip.MustParsePrefix("10.244.0.5/32")}) || len(Exclude(hit)) > 0 {
		t.Errorf("kept back %v, excluded %v", got, Exclude(hit))
	}
}
