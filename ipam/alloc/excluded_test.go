package alloc_test

import (
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestExcluded: no block that something else uses a part of is claimed, and no
// address in it is given, even if it is asked for, or in a block that the node
// had before.
func TestExcluded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/27", 28)
		n := start(t, s, "n1", nil, p)
		first := n.plug(t, "a")
		block := netip.PrefixFrom(first, 28).Masked()
		router := block.Addr().Next().Next().Next()
		p.Excluded = []netip.Prefix{netip.PrefixFrom(router, 32)}
		for c := netip.MustParsePrefix("10.0.0.0/28"); ; c = netip.MustParsePrefix("10.0.0.16/28") {
			if c != block {
				p.Excluded = append(p.Excluded, netip.PrefixFrom(c.Addr(), 30))
				break
			}
		}
		n.SetPools([]model.Pool{p})
		got := map[netip.Addr]bool{first: true}
		for i := range 14 { // what the block has, less one and the router's
			addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "more" + string(rune('a'+i)), V4: 1})
			if err != nil {
				t.Fatal(err)
			}
			if !block.Contains(addrs[0]) || addrs[0] == router || got[addrs[0]] {
				t.Errorf("got %s out of %s without %s", addrs[0], block, router)
			}
			got[addrs[0]] = true
		}
		if addrs, err := n.Assign(t.Context(), alloc.Request{Handle: "full", V4: 1}); ipam.CodeOf(err) != ipam.CodePoolExhausted {
			t.Errorf("got %v, %v of a pool whose rest something else uses", addrs, err)
		}
		if _, err := n.Assign(t.Context(), alloc.Request{Handle: "asks", Addrs: []netip.Addr{router}}); ipam.CodeOf(err) != ipam.CodePoolUnusable {
			t.Errorf("the router's address was asked for: %v", err)
		}
		n.stop()
	})
}

// TestExcludedBlockIsNotClaimedForOneAddress: an address that nothing else uses,
// in a block that something else uses a part of, asked for by a new pod or had by
// a running one.
func TestExcludedBlockIsNotClaimedForOneAddress(t *testing.T) {
	for _, c := range []struct{ cidr, excluded, addr string }{
		{"10.0.0.0/26", "10.0.0.1/32", "10.0.0.7"},
		{"10.0.0.0/24", "10.0.0.128/25", "10.0.0.7"},
		{"fd00::/112", "fd00::1/128", "fd00::7"},
	} {
		synctest.Test(t, func(t *testing.T) {
			bits := 24
			if netip.MustParseAddr(c.addr).Is6() {
				bits = 120
			}
			s, p := ipamtest.New(), pool("p", c.cidr, max(bits, netip.MustParsePrefix(c.cidr).Bits()))
			p.Excluded = []netip.Prefix{netip.MustParsePrefix(c.excluded)}
			n := start(t, s, "n1", nil, p)
			addr := netip.MustParseAddr(c.addr)
			if got, err := n.Assign(t.Context(), alloc.Request{Handle: "asks", Addrs: []netip.Addr{addr}}); ipam.CodeOf(err) != ipam.CodePoolUnusable {
				t.Errorf("%s was asked for: %v, %v", addr, got, err)
			}
			n.SetLive([]alloc.Live{{Handle: "runs", Addr: addr}})
			synctest.Wait()
			for cidr := range s.Blocks() {
				t.Errorf("block %s was claimed, and something uses %s", cidr, c.excluded)
			}
			n.stop()
		})
	}
}
