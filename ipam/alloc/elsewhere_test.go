package alloc_test

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
)

// TestAnnouncedElsewhere: no block is claimed that somebody else announces, though
// the store has none of that name; it is once nobody announces it any more.
func TestAnnouncedElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/30", 31)
		first := netip.MustParsePrefix("10.0.0.0/31")
		n := start(t, s, "n1", nil, p)
		n.SetElsewhere(func(block netip.Prefix) bool { return block == first })
		for _, name := range []string{"a", "b"} {
			if got := n.plug(t, name); first.Contains(got) {
				t.Errorf("%s has %s, of a block that another node announces", name, got)
			}
		}
		if addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "c", V4: 1}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
			t.Errorf("got %v, %v of a pool whose rest another node announces", addrs, err)
		}
		if addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "named", Addrs: []netip.Addr{first.Addr()}}); ipam.CodeOf(err) != ipam.CodePoolUnusable {
			t.Errorf("got %v, %v by name, of a block that another node announces", addrs, err)
		}
		n.SetElsewhere(func(netip.Prefix) bool { return false })
		n.stop()
		n = start(t, s, "n1", nil, p) // forgets that the pool was full
		if got := n.plug(t, "c"); !first.Contains(got) {
			t.Errorf("c has %s, want one of %s, which nobody announces any more", got, first)
		}
		n.stop()
	})
}
