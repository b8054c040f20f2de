package kubestore_test

import (
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
)

// Another machine, the controller's, releases addresses of a node, and its clock is an
// hour ahead of the node's, or behind. The cooldown is the same.
func TestCooldownBetweenMachines(t *testing.T) {
	wipe(t)
	cidr, small := prefix("10.244.9.0/30"), pool("small", "10.244.9.0/30", 30)
	if _, err := start(t, open(t), "n1", small).Assign(t.Context(), alloc.Request{Handle: "a", V4: 4}); err != nil {
		t.Fatal(err)
	}
	for addr, ahead := range map[string]time.Duration{"10.244.9.1/32": time.Hour, "10.244.9.2/32": -time.Hour} {
		other := open(t)
		b, rev, err := other.Blocks().Get(t.Context(), cidr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Release([]ipam.Release{{Addr: prefix(addr).Addr()}}, time.Now().Add(ahead), 1200*time.Second); err != nil {
			t.Fatal(err)
		}
		b.Bump()
		if _, err := other.Blocks().Update(t.Context(), b, rev); err != nil {
			t.Fatal(err)
		}
	}
	a := start(t, open(t), "n1", small)
	a.SetConfig(alloc.Config{AutoAllocateBlocks: true, StrictAffinity: true, CooldownSeconds: 1200})
	<-a.Ready()
	if got, err := a.Assign(t.Context(), alloc.Request{Handle: "b", V4: 1}); err == nil {
		t.Fatalf("%v is given out again at once: the clock of who released it is an hour behind", got)
	}
	a.SetConfig(alloc.Config{AutoAllocateBlocks: true, StrictAffinity: true, CooldownSeconds: 1})
	eventually(t, "both to be given out again", func() bool {
		got, err := a.Assign(t.Context(), alloc.Request{Handle: "b", V4: 2})
		return err == nil && len(got) == 2
	})
}
