package alloc_test

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/selector"
)

// TestStrictSelectors: a strict pool is not for whoever names it, or an address or
// the prefix of it, in a namespace that it does not select.
func TestStrictSelectors(t *testing.T) {
	team, err := selector.Parse(`team == "a"`)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		strict string
		labels map[string]string
		want   ipam.Code
	}{
		"strict, selected":     {"true", map[string]string{"team": "a"}, ""},
		"strict, not selected": {"true", map[string]string{"team": "b"}, ipam.CodePoolUnusable},
		"strict, no labels":    {"true", nil, ipam.CodePoolUnusable},
		"as Calico":            {"", map[string]string{"team": "b"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := pool("p", "10.0.0.0/24", 28)
				p.NamespaceSelector, p.Annotations = team, map[string]string{alloc.AnnotationStrict: c.strict}
				n := start(t, ipamtest.New(), "n1", nil, p)
				for i, r := range []alloc.Request{
					{V4: 1, PoolsV4: []string{"p"}}, {V4: 1, PoolsV4: []string{"10.0.0.0/24"}}, {Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.77")}},
				} {
					r.Handle, r.NamespaceLabels = "h"+string(rune('a'+i)), c.labels
					if _, err := n.Assign(t.Context(), r); (err == nil) != (c.want == "") || err != nil && ipam.CodeOf(err) != c.want {
						t.Errorf("request %d: %v", i, err)
					}
				}
				n.stop()
			})
		})
	}
}

// TestNamedAddressesKeepToTheLimit: pods that name an address of each block do not
// have the node claim the pool.
func TestNamedAddressesKeepToTheLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ipamtest.New()
		n := start(t, s, "n1", nil, pool("p", "10.0.0.0/24", 28))
		n.SetConfig(alloc.Config{AutoAllocateBlocks: true, MaxBlocksPerHost: 3})
		refused := 0
		for i := range 16 {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(16*i + 5)})
			_, err := n.Assign(t.Context(), alloc.Request{Handle: "h" + string(rune('a'+i)), Addrs: []netip.Addr{addr}})
			switch {
			case ipam.CodeOf(err) == ipam.CodeBlockLimit:
				refused++
			case err != nil:
				t.Fatal(err)
			}
		}
		if blocks := len(s.Blocks()); blocks != 3 || refused != 13 {
			t.Errorf("%d blocks, %d refused", blocks, refused)
		}
		n.stop()
	})
}
