package bgp

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// A node whose object is deleted asks its peers to prefer others, and then
// withdraws; one that comes back is as it was.
func TestShutdown(t *testing.T) {
	here := model.Node{Name: "n1", RouteReflectorClusterID: "1.0.0.1"}
	other := model.Node{Name: "n2"}
	began := time.Unix(1000, 0)
	var d Shutdown
	for i, step := range []struct {
		after time.Duration
		nodes []model.Node
		drain string // of n1; "missing" when it is not there
		next  time.Duration
	}{
		{0, []model.Node{other}, "missing", 0}, // not seen yet
		{0, []model.Node{here, other}, "", 0},
		{time.Second, []model.Node{other}, DrainShutdown, ShutdownTime},
		{4 * time.Second, []model.Node{other}, DrainShutdown, ShutdownTime - 3*time.Second},
		{time.Second + ShutdownTime, []model.Node{other}, DrainWithdrawn, 0},
		{2 * time.Minute, []model.Node{other}, DrainWithdrawn, 0},
		{3 * time.Minute, []model.Node{here, other}, "", 0},
		{4 * time.Minute, []model.Node{other}, DrainShutdown, ShutdownTime},
	} {
		s := model.Snapshot{Synced: true, Nodes: step.nodes}
		next := d.Fill(&s, "n1", began.Add(step.after))
		got := "missing"
		if n, ok := s.Node("n1"); ok {
			got = DrainStep(n)
			if n.RouteReflectorClusterID != here.RouteReflectorClusterID {
				t.Errorf("step %d: the node is another: %+v", i, n)
			}
		}
		if got != step.drain || next != step.next {
			t.Errorf("step %d: drain %q, next in %s; want %q, %s", i, got, next, step.drain, step.next)
		}
	}
	unsynced := model.Snapshot{}
	if d.Fill(&unsynced, "n1", began); len(unsynced.Nodes) > 0 {
		t.Error("a cluster that is not known yet has lost nobody")
	}
}
