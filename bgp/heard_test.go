package bgp_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

func TestReceivedProblems(t *testing.T) {
	s := cluster()
	s.Nodes[0] = dual(s.Nodes[0])
	s.Peers = []model.BGPPeer{tor(annotated("muslin.io/prefix-limit", "1000"))}
	s.BGP[0].Annotations = map[string]string{"muslin.io/prefix-limit": "40"}
	c, problems := bgp.Desired(s, "n1")
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	status := func(a string, four, six int) model.PeerStatus {
		return model.PeerStatus{Address: addr(a), Received: map[string]int{"ipv4": four, "ipv6": six}}
	}
	for name, tc := range map[string]struct {
		peers []model.PeerStatus
		odd   []bgp.Oddity
		want  []string
	}{
		"within bounds": {peers: []model.PeerStatus{status("10.0.1.254", 750, 750), status("10.0.1.2", 30, 99), status("192.0.2.1", 1e6, 0)}},
		"near": {
			peers: []model.PeerStatus{status("10.0.1.254", 10, 751), status("10.0.1.2", 31, 0)},
			want:  []string{"BGPPeer tor PrefixLimitNear", "Node n2 PrefixLimitNear"},
		},
		"odd": {
			odd: []bgp.Oddity{
				{Peer: addr("10.0.1.254"), Prefix: prefix("fd44::/64")},
				{Peer: addr("10.0.1.254"), Prefix: prefix("10.244.7.0/26"), Origin: 65300},
				{Peer: addr("192.0.2.1"), Prefix: prefix("fd44::/64")},
			},
			want: []string{"BGPPeer tor ForeignBlock", "BGPPeer tor UnusableNextHop"},
		},
	} {
		var got []string
		for _, p := range bgp.ReceivedProblems(c, tc.peers, tc.odd) {
			got = append(got, fmt.Sprintf("%s %s", p.Object, p.Reason))
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
}

// No session is without a limit.
func TestPrefixLimits(t *testing.T) {
	s := cluster()
	workloads(t, &s)
	s.Peers = append(s.Peers, tor(), tor(annotated("muslin.io/prefix-limit", "7"), func(p *model.BGPPeer) { p.Name, p.PeerIP = "seven", addr("10.0.1.253") }),
		model.BGPPeer{Name: "inside", PeerIP: addr("10.0.2.10"), ASN: 64512})
	limits := func() map[string]int {
		c, _ := bgp.Desired(s, "n1")
		out := map[string]int{}
		for _, p := range c.Peers {
			out[p.Object.String()] = p.PrefixLimit
		}
		return out
	}
	want := map[string]int{"BGPPeer red": 10_000, "BGPPeer blue": 10_000, "BGPPeer tor": 100_000, "BGPPeer seven": 7, "BGPPeer inside": 100_000, "Node n2": 100_000}
	if diff := cmp.Diff(want, limits()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	s.BGP[0].Annotations = map[string]string{"muslin.io/prefix-limit": "99"}
	want["Node n2"] = 99
	if diff := cmp.Diff(want, limits()); diff != "" {
		t.Errorf("with one of the mesh: -want +got:\n%s", diff)
	}
}
