package alloc_test

import (
	"testing"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestVersions: a block has another version once somebody else has written it, however short
// an address of it was not this node's, and the same one as long as nobody has.
func TestVersions(t *testing.T) {
	s, p := ipamtest.New(), pool("p", "10.0.0.0/26", 26)
	n := start(t, s, "n1", nil, p)
	if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	block := prefix("10.0.0.0/26")
	version := n.Versions()[block]
	if version == 0 || len(n.Versions()) != 1 {
		t.Fatalf("versions %v, want one of %s", n.Versions(), block)
	}
	same := func(when string, want bool) {
		t.Helper()
		now := n.Versions()[block]
		if (now == version) != want {
			t.Errorf("%s: version %d, and %d before: want the same: %v", when, now, version, want)
		}
		version = now
	}
	for range 100 {
		n.assign(t, "own")
		n.release(t, "own")
	}
	same("after what the node has written", true)
	other := start(t, s, "n2", nil, p)
	other.assign(t, "borrowed")
	other.release(t, "borrowed")
	n.assign(t, "next") // of what the block is by then
	same("after an address was borrowed and given back", false)
	n.release(t, "next")
	same("after that", true)

	got := n.assign(t, "leaked")
	if err := alloc.ReleaseAddrs(t.Context(), s.Client(nil), block, []ipam.Release{{Addr: got, Handle: "leaked"}}, 0); err != nil {
		t.Fatal(err)
	}
	n.assign(t, "next")
	same("after somebody else took an address back", false)
}
