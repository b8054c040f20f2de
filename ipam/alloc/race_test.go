package alloc_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// race runs nodes on one pool until pairs are made, and checks the end.
func race(t *testing.T, nodes, pairs int, p model.Pool) {
	s := ipamtest.New()
	r := &ipamtest.Race{Nodes: nodes, Pairs: pairs, Pool: p,
		Connect: func() ipamtest.Conn { return s.Client(ipamtest.RandomFaults(40)) }}
	r.Run(t)
	sound(t, s, 0)
	settle(t, s, nodes, p)
}

// settle starts every node once more, without faults, and checks that repair
// leaves each block with exactly one confirmed affinity.
func settle(t *testing.T, s *ipamtest.Store, nodes int, p model.Pool) {
	for i := range nodes {
		n := start(t, s, model.NodeName(fmt.Sprint("n", i)), nil, p)
		<-n.Ready()
		if err := n.Release(t.Context(), "nobody"); err != nil {
			t.Fatal(err)
		}
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		wrong := mismatches(s)
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("affinities and blocks do not fit: %v", wrong)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func mismatches(s *ipamtest.Store) []string {
	var wrong []string
	blocks := s.Blocks()
	claimed := map[netip.Prefix]bool{}
	for _, a := range s.Affinities() {
		b := blocks[a.CIDR]
		if b == nil || b.Node() != a.Node || a.State != model.BlockConfirmed {
			wrong = append(wrong, fmt.Sprintf("affinity %v", a))
		}
		claimed[a.CIDR] = true
	}
	for cidr, b := range blocks {
		if b.Affinity() != "" && !claimed[cidr] {
			wrong = append(wrong, fmt.Sprintf("block %s of %s without affinity", cidr, b.Node()))
		}
	}
	return wrong
}

// TestRace has 32 nodes fight for a /22 with 16 blocks, so that half of them
// live on borrowed addresses.
func TestRace(t *testing.T) {
	race(t, 32, 10_000, pool("p", "10.0.0.0/22", 26))
}

// TestRaceScarce has fewer addresses than askers, and blocks of two.
func TestRaceScarce(t *testing.T) {
	race(t, 8, 2_000, pool("p", "10.0.0.0/28", 31))
}
