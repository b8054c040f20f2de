package kubestore_test

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/ipam/kubestore"
)

// TestRace has 32 nodes fight for a /22 on a real API server, with random
// faults between any two calls, crashes of the allocators, and a restart of
// the API server in the middle: some 80 assignments a node. TestSoakRace goes on
// for longer.
func TestRace(t *testing.T) {
	t.Parallel() // with tests that have servers of their own
	race(t, 2_500)
}

func race(t *testing.T, pairs int) {
	wipe(t)
	r := &ipamtest.Race{
		Nodes: 32, Pairs: pairs, Pool: pool("p", "10.0.0.0/22", 26),
		Connect: func() ipamtest.Conn { return ipamtest.NewFaulty(open(t), ipamtest.RandomFaults(60)) },
		Meanwhile: func() {
			began := time.Now()
			server.Restart(t)
			t.Logf("the API server was restarted in %v", time.Since(began))
		},
	}
	began := time.Now()
	r.Run(t)
	t.Logf("%d pairs in %v", r.Pairs, time.Since(began))
	audit(t, open(t))
}

// audit checks what is left: valid blocks, no address, no handle.
func audit(t *testing.T, s *kubestore.Store) {
	t.Helper()
	blocks := 0
	err := s.EachBlock(t.Context(), netip.MustParsePrefix("0.0.0.0/0"), func(b *ipam.Block, _ ipam.Revision) bool {
		blocks++
		if err := b.Validate(time.Now()); err != nil {
			t.Error(err)
		}
		for a := range b.Allocations() {
			t.Errorf("leaked: %s of %s", a.Addr, a.Handle)
		}
		return true
	})
	if err != nil || blocks == 0 {
		t.Errorf("%d blocks, %v", blocks, err)
	}
	if out := server.MustKubectl(t, "", "get", "ipamhandles", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("orphaned handles: %s", out)
	}
}
