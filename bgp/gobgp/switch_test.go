package gobgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

// A mesh becomes a star around two reflectors, and a mesh again: no node is
// without any other's block for a moment.
func TestMeshToReflectorsAndBack(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	const count = 5
	snap := model.Snapshot{
		Synced: true, BGP: []model.BGPConfiguration{{Name: "default"}},
		Pools: []model.Pool{{Name: "v4", CIDR: pfx("10.244.0.0/16")}},
	}
	var speakers []*process
	for i := 1; i <= count; i++ {
		h := n.Host(i)
		speakers = append(speakers, startSpeaker(t, h, ""))
		name := model.NodeName(fmt.Sprintf("n%d", i))
		snap.Nodes = append(snap.Nodes, model.Node{Name: name, IPv4: pfx(h.V4 + "/24"), Labels: map[string]string{"i": fmt.Sprint(i)}})
		snap.Blocks = append(snap.Blocks, model.Block{CIDR: pfx(fmt.Sprintf("10.244.%d.0/26", i)), Node: name, State: model.BlockConfirmed})
	}
	apply := func() {
		for i, s := range speakers {
			c, problems := bgp.Desired(snap, snap.Nodes[i].Name)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			s.apply(c)
		}
	}
	full := func() string {
		for i, s := range speakers {
			got := s.learned()
			for j := range speakers {
				if want := fmt.Sprintf("10.244.%d.0/26 via [10.9.0.%d]", j+1, j+1); i != j && !strings.Contains(got, want) {
					return fmt.Sprintf("node %d lacks %s:\n%s", i+1, want, got)
				}
			}
		}
		return ""
	}
	sessions := func(want int) func() string {
		return func() string {
			for i, s := range speakers[2:] {
				if got := strings.Count(s.peers(), "Established"); got != want {
					return fmt.Sprintf("node %d has %d sessions, not %d:\n%s", i+3, got, want, s.peers())
				}
			}
			return ""
		}
	}
	steadyUntil := func(what string, check func() string) {
		t.Helper()
		for end := time.Now().Add(90 * time.Second); ; {
			if bad := full(); bad != "" {
				t.Fatalf("%s: %s", what, bad)
			}
			bad := check()
			if bad == "" {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%s: %s", what, bad)
			}
		}
	}
	apply()
	bgptest.Eventually(t, "mesh", full)
	bgptest.Eventually(t, "mesh sessions", sessions(count-1))

	snap.BGP[0].MeshEnabled = off()
	snap.Nodes[0].RouteReflectorClusterID, snap.Nodes[1].RouteReflectorClusterID = "1.0.0.1", "1.0.0.1"
	snap.Peers = []model.BGPPeer{
		{Name: "rr1", PeerIP: netip.MustParseAddr("10.9.0.1"), ASN: 64512},
		{Name: "rr2", PeerIP: netip.MustParseAddr("10.9.0.2"), ASN: 64512},
	}
	apply()
	steadyUntil("to reflectors", sessions(2))
	bgptest.Steady(t, "with reflectors", 3*time.Second, full)

	snap.BGP[0].MeshEnabled = nil
	snap.Nodes[0].RouteReflectorClusterID, snap.Nodes[1].RouteReflectorClusterID = "", ""
	snap.Peers = nil
	apply()
	steadyUntil("to the mesh", sessions(count-1))
	bgptest.Steady(t, "with the mesh", 15*time.Second, full)
}
