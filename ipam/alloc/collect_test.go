package alloc_test

import (
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
)

// TestReleaseAddrs collects garbage with every fault at every call.
func TestReleaseAddrs(t *testing.T) {
	for rate := range 12 {
		s := ipamtest.New()
		n := start(t, s, "n1", nil, pool("p", "10.0.0.0/26", 26))
		n.assign(t, "kept")
		n.assign(t, "gone")
		if _, err := n.Assign(t.Context(), alloc.Request{Handle: "half", V4: 2}); err != nil {
			t.Fatal(err)
		}
		var list []ipam.Release
		for _, a := range n.Allocations() {
			if a.Handle == "gone" || a.Handle == "half" && len(list) < 2 {
				list = append(list, ipam.Release{Addr: a.Addr, Handle: a.Handle, Sequence: &a.Sequence})
			}
		}
		cidr := n.Blocks()[0].CIDR
		stale := *list[0].Sequence + 1
		c := s.Client(nil)
		if err := alloc.ReleaseAddrs(t.Context(), c, cidr, []ipam.Release{{Addr: list[0].Addr, Sequence: &stale}, list[1]}, 0); err == nil {
			t.Error("a stale sequence number was accepted")
		}
		sound(t, s, 4)
		calls := 0
		faulty := s.Client(func(string) ipamtest.Fault {
			calls++
			if calls == rate {
				return ipamtest.Lost
			}
			if calls == rate+1 {
				return ipamtest.Conflict
			}
			return ipamtest.None
		})
		for range 2 {
			if err := alloc.ReleaseAddrs(t.Context(), faulty, cidr, list, 0); err != nil {
				t.Errorf("rate %d: %v", rate, err)
			}
		}
		sound(t, s, 2)
		if got := n.Addresses("kept"); len(got) != 1 {
			t.Errorf("kept: %v", got)
		}
		if got := n.Addresses("never seen"); len(got) != 0 {
			t.Errorf("never seen: %v", got)
		}
		if err := alloc.ReleaseAddrs(t.Context(), c, prefix("10.9.0.0/26"), list, 0); err != nil {
			t.Errorf("a block that is gone: %v", err)
		}
	}
}
