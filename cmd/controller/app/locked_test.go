package app

import (
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestLockedClusterKeepsAll: while datastoreReady is false nothing is released,
// neither what is due already nor what becomes due; afterwards all of it is.
func TestLockedClusterKeepsAll(t *testing.T) {
	s := ipamtest.New()
	store := s.Client(nil)
	cidr, handle := netip.MustParsePrefix("10.0.0.0/26"), "net.orphan"
	if _, err := store.Blocks().Create(t.Context(), blockOf(t, cidr.String(), "")); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Handles().Create(t.Context(), ipam.Handle{ID: handle, Blocks: map[netip.Prefix]int{cidr: 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Affinities().Create(t.Context(), ipam.Affinity{Node: "gone", CIDR: netip.MustParsePrefix("10.0.1.0/26"), State: model.BlockConfirmed}); err != nil {
		t.Fatal(err)
	}
	clock := now
	g := collector{store: store, objects: &Objects{pods: newPodIndex()}, now: func() time.Time { return clock }, log: slog.New(slog.DiscardHandler)}
	due := verdicts{
		orphans: []string{handle},
		blocks:  []seenBlock{{cidr: cidr, idle: true, seq: s.Blocks()[cidr].Sequence()}},
	}
	locked := model.Snapshot{IPAM: model.IPAM{Locked: true}}
	for range 3 {
		g.todo = due
		if err := g.act(t.Context(), locked); err != nil {
			t.Fatal(err)
		}
		if len(s.Blocks()) != 1 || len(s.Handles()) != 1 || len(s.Affinities()) != 1 {
			t.Fatalf("of a locked cluster are left: blocks %v, handles %v, affinities %v", s.Blocks(), s.Handles(), s.Affinities())
		}
	}
	g.todo = due
	if err := g.act(t.Context(), model.Snapshot{}); err != nil {
		t.Fatal(err)
	}
	if len(s.Blocks()) != 0 || len(s.Handles()) != 0 {
		t.Errorf("of the open cluster are left: blocks %v, handles %v", s.Blocks(), s.Handles())
	}
}
