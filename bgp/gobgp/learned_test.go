package gobgp

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

func pathOf(t *testing.T, prefix, peer string, withdraw bool) *apiutil.Path {
	t.Helper()
	nlri, err := packet.NewIPAddrPrefix(netip.MustParsePrefix(prefix))
	if err != nil {
		t.Fatal(err)
	}
	nh, err := packet.NewPathAttributeNextHop(netip.MustParseAddr(peer))
	if err != nil {
		t.Fatal(err)
	}
	return &apiutil.Path{
		Family: packet.RF_IPv4_UC, Nlri: nlri, PeerAddress: netip.MustParseAddr(peer), Withdrawal: withdraw,
		Attrs: []packet.PathAttributeInterface{nh},
	}
}

// What is kept up to date change by change is what would be made from scratch.
func TestLearnedIncremental(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := newLearned(func() {})
	sub := l.subscribe()
	sub.listed(nil)
	cfg := &bgp.Config{
		MaxPaths: 2, NoInstall: []netip.Prefix{netip.MustParsePrefix("10.0.3.0/24")},
		Peers: []bgp.Peer{{Address: netip.MustParseAddr("10.9.0.1"), Kind: model.PeerMesh}},
	}
	peers := []string{"10.9.0.1", "10.9.0.2", "10.9.0.3"}
	for range 2000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(r.IntN(4)), byte(r.IntN(8) << 5)}), 27)
		switch r.IntN(40) {
		case 0:
			l.hold(netip.MustParseAddr(peers[0]))
		case 1:
			l.release(netip.MustParseAddr(peers[0]))
		}
		sub.paths([]*apiutil.Path{pathOf(t, p.String(), peers[r.IntN(3)], r.IntN(2) == 0)})
		got := l.snapshot(cfg)
		scratch := *cfg
		fresh := newLearned(func() {})
		fresh.routes = l.routes
		want := fresh.snapshot(&scratch)
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		if !slices.IsSortedFunc(got, func(x, y model.Learned) int { return comparePrefixes(x.Prefix, y.Prefix) }) {
			t.Fatal("not sorted")
		}
		for _, x := range got {
			if len(x.NextHops) == 0 || len(x.NextHops) > 2 || len(x.NextHops) != len(x.From) {
				t.Fatalf("%+v", x)
			}
		}
	}
}

// Prefixes with the same next hops share what is said of them, whether that is
// one or several; one that changes leaves the others alone.
func TestLearnedShares(t *testing.T) {
	l := newLearned(func() {})
	sub := l.subscribe()
	sub.listed(nil)
	cfg, peers := &bgp.Config{MaxPaths: 4}, []string{"10.9.0.1", "10.9.0.2"}
	for _, peer := range peers {
		sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", peer, false), pathOf(t, "10.0.0.64/26", peer, false)})
	}
	sub.paths([]*apiutil.Path{pathOf(t, "10.0.1.0/26", peers[0], false), pathOf(t, "10.0.1.64/26", peers[0], false)})
	before := l.snapshot(cfg)
	for i, hops := range []int{2, 2, 1, 1} {
		if n := len(before[i].NextHops); n != hops || before[i].Multipath != before[i&^1].Multipath {
			t.Errorf("%s has %d next hops, want %d, shared with its neighbour", before[i].Prefix, n, hops)
		}
	}
	sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.64/26", peers[1], true)})
	after := l.snapshot(cfg)
	if len(before[1].NextHops) != 2 || len(after[0].NextHops) != 2 || after[1].Multipath != after[2].Multipath {
		t.Errorf("after a path is gone: before %v, now %v", before[1], after)
	}
}

func TestLearnedHold(t *testing.T) {
	l := newLearned(func() {})
	sub := l.subscribe()
	a, b := "10.9.0.1", "10.9.0.2"
	sub.paths([]*apiutil.Path{pathOf(t, "10.0.1.0/26", b, true)}) // before the list is there
	sub.listed([]*apiutil.Path{pathOf(t, "10.0.0.0/26", a, false), pathOf(t, "10.0.1.0/26", b, false)})
	cfg := &bgp.Config{MaxPaths: 4}
	via := func(want ...string) {
		t.Helper()
		var got []string
		for _, x := range l.snapshot(cfg) {
			for _, nh := range x.NextHops {
				got = append(got, nh.String())
			}
		}
		if !slices.Equal(got, want) {
			t.Fatalf("next hops %v, want %v", got, want)
		}
	}
	via(a)
	l.hold(netip.MustParseAddr(a))
	sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", a, true)})
	via(a)
	if !l.snapshot(cfg)[0].Stale {
		t.Error("a held route is not marked stale")
	}
	again := l.subscribe() // a listing of the RIB does not show it
	again.listed(nil)
	via(a)
	sub.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", b, false)}) // an old subscription has no say
	via(a)
	again.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", b, false)})
	via(b)
	again.paths([]*apiutil.Path{pathOf(t, "10.0.0.0/26", b, true)})
	via(a)
	l.release(netip.MustParseAddr(a))
	via()
	var none []model.Learned
	if got := l.snapshot(cfg); len(got) != len(none) {
		t.Error(got)
	}
}
