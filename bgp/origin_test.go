package bgp_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

func received(p string, nextHops ...string) model.Learned {
	l := model.Learned{Prefix: prefix(p), Multipath: &model.Multipath{}}
	for _, nh := range nextHops {
		l.NextHops, l.From = append(l.NextHops, addr(nh)), append(l.From, addr(nh))
	}
	return l
}

// Of several routes only the refused ones are touched, and the list that was given
// is left alone.
func TestOriginCheckOfSeveral(t *testing.T) {
	snap := cluster()
	snap.BGP[0].Annotations = map[string]string{bgp.AnnotationOriginCheck: "Enforce"}
	good, bad, half := received("10.244.2.0/26", "10.0.1.2"), received("10.244.77.0/26", "10.0.1.2"), received("10.244.2.0/26", "10.0.1.2", "10.0.2.10")
	for _, c := range []struct{ given, want []model.Learned }{
		{[]model.Learned{good, good}, []model.Learned{good, good}},
		{[]model.Learned{good, bad, good, bad}, []model.Learned{good, good}},
		{[]model.Learned{bad, half, good}, []model.Learned{good, good}},
		{[]model.Learned{bad}, []model.Learned{}},
	} {
		before := slices.Clone(c.given)
		got, _ := bgp.NewOriginCheck(snap, "n1").Apply(c.given, nil)
		if d := cmp.Diff(c.want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("-want +got:\n%s", d)
		}
		if d := cmp.Diff(before, c.given, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
			t.Errorf("the list that was given: -before +after:\n%s", d)
		}
	}
}

// BenchmarkOriginCheck checks 50,000 blocks, all in order.
func BenchmarkOriginCheck(b *testing.B) {
	snap := cluster()
	snap.Blocks = nil
	snap.BGP[0].Annotations = map[string]string{bgp.AnnotationOriginCheck: "Enforce"}
	var learned []model.Learned
	for i := range 50000 {
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(200 + i>>10), byte(i >> 2), byte(i << 6)}), 26)
		snap.Blocks = append(snap.Blocks, model.Block{CIDR: p, Node: "n2", State: model.BlockConfirmed})
		learned = append(learned, model.Learned{Prefix: p, Multipath: &model.Multipath{NextHops: []netip.Addr{addr("10.0.1.2")}, From: []netip.Addr{addr("10.0.1.2")}}})
	}
	snap.Pools[0].CIDR = prefix("10.0.0.0/8")
	check := bgp.NewOriginCheck(snap, "n1")
	b.ReportAllocs()
	for b.Loop() {
		if _, refused := check.Apply(learned, nil); len(refused) > 0 {
			b.Fatal(refused[0])
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(learned)), "ns/route")
}

func TestOriginCheck(t *testing.T) {
	const node2, node10, router = "10.0.1.2", "10.0.2.10", "10.0.1.254"
	for _, tc := range []struct {
		name    string
		route   model.Learned
		reasons []string
		left    int // next hops
	}{
		{"owner", received("10.244.2.0/26", node2), nil, 1},
		{"a router before the owner", received("10.244.10.0/26", router), nil, 1},
		{"a router before an owner on our own subnet", received("10.244.2.0/26", router), []string{bgp.ReasonNotBehind}, 0},
		{"a router beside an owner on our own subnet", received("10.244.2.0/26", node2, router), []string{bgp.ReasonNotBehind}, 1},
		{"an owner on our own subnet by its link-local address", received("10.244.2.0/26", "fe80::2"), nil, 1},
		{"an IPv6 router before an owner on our own subnet", received("fd44::/122", "fd00:1::fe"), []string{bgp.ReasonNotBehind}, 0},
		{"another node", received("10.244.2.0/26", node10), []string{bgp.ReasonWrongOwner}, 0},
		{"another node beside the owner", received("10.244.2.0/26", node2, node10), []string{bgp.ReasonWrongOwner}, 1},
		{"half of a block by its owner", received("10.244.2.0/27", node2), nil, 1},
		{"half of a block by another", received("10.244.2.0/27", node10), []string{bgp.ReasonWrongOwner}, 0},
		{"half of a block by a router", received("10.244.2.0/27", router), []string{bgp.ReasonNoBlock}, 0},
		{"a borrowed address out of a block of nobody", received("10.244.8.9/32", node10), nil, 1},
		{"a block of nobody", received("10.244.8.0/26", node10), []string{bgp.ReasonWrongOwner}, 0},
		{"a host route by a router", received("10.244.2.9/32", router), nil, 1},
		{"a host route in no block", received("10.244.77.9/32", router), []string{bgp.ReasonNoBlock}, 0},
		{"a borrowed address", received("10.244.2.9/32", node10), nil, 1},
		{"no block", received("10.244.77.0/26", node2), []string{bgp.ReasonNoBlock}, 0},
		{"no block, by a router", received("10.244.77.0/26", router), []string{bgp.ReasonNoBlock}, 0},
		{"an aggregate", received("10.244.0.0/20", router), nil, 1},
		{"outside all pools", received("192.0.2.0/24", node10), nil, 1},
		{"a default route", received("0.0.0.0/0", router), nil, 1},
		{"IPv6", received("fd44::/64", router), nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			snap := cluster()
			snap.Nodes[0], snap.Nodes[1] = dual(snap.Nodes[0]), dual(snap.Nodes[1])
			snap.Pools = append(snap.Pools, model.Pool{Name: "v6", CIDR: prefix("fd44::/48"), BlockSize: 122})
			snap.Blocks = append(snap.Blocks, model.Block{CIDR: prefix("10.244.8.0/26"), State: model.BlockConfirmed},
				model.Block{CIDR: prefix("10.244.10.0/26"), Node: "n10", State: model.BlockConfirmed},
				model.Block{CIDR: prefix("fd44::/122"), Node: "n2", State: model.BlockConfirmed})
			for _, mode := range []bgp.OriginMode{bgp.OriginOff, bgp.OriginWarn, bgp.OriginEnforce} {
				snap.BGP[0].Annotations = map[string]string{bgp.AnnotationOriginCheck: string(mode)}
				kept, refused := bgp.NewOriginCheck(snap, "n1").Apply([]model.Learned{tc.route}, nil)
				var reasons []string
				for _, r := range refused {
					reasons = append(reasons, r.Reason)
				}
				want, left := tc.reasons, tc.left
				if mode == bgp.OriginOff {
					want = nil
				}
				if mode != bgp.OriginEnforce {
					left = len(tc.route.NextHops)
				}
				if d := cmp.Diff(want, reasons, cmpopts.EquateEmpty()); d != "" {
					t.Errorf("%s: reasons -want +got:\n%s", mode, d)
				}
				got := 0
				for _, l := range kept {
					got += len(l.NextHops)
				}
				if got != left {
					t.Errorf("%s: %d next hops left, want %d", mode, got, left)
				}
			}
			snap.BGP[0].Annotations[bgp.AnnotationOriginCheck] = "Enforce"
			kept, refused := bgp.NewOriginCheck(snap, "n1").Apply([]model.Learned{tc.route}, func(netip.Prefix) bool { return true })
			if len(kept) != 1 || len(refused) != 0 {
				t.Errorf("an installed route was refused while the API is away: %v", refused)
			}
		})
	}
}

// With the allocations of blocks known, a host route is its user's alone: 64 of them
// would take a whole block by the longest match.
func TestOriginOfHostRoutes(t *testing.T) {
	const node2, node10, router = "10.0.1.2", "10.0.2.10", "10.0.1.254"
	snap := cluster()
	snap.BGP[0].Annotations = map[string]string{bgp.AnnotationOriginCheck: "Enforce"}
	snap.Pools = append(snap.Pools, model.Pool{Name: "by-hand", CIDR: prefix("10.250.0.0/24"), Manual: true})
	snap.Blocks = []model.Block{
		{CIDR: prefix("10.244.1.0/26"), Node: "n1", State: model.BlockConfirmed},
		{CIDR: prefix("10.244.2.0/26"), Node: "n2", State: model.BlockConfirmed},
		{CIDR: prefix("10.244.8.0/26"), State: model.BlockConfirmed},
		{CIDR: prefix("10.244.10.0/26"), Node: "n10", State: model.BlockConfirmed},
		{CIDR: prefix("10.244.11.5/32"), Node: "n2", State: model.BlockConfirmed},
		{CIDR: prefix("10.250.0.0/26"), Node: "n2", State: model.BlockConfirmed},
	}
	snap.LentKnown = true
	snap.Lent = []model.Lease{{Addr: addr("10.244.2.9"), Node: "n10"}, {Addr: addr("10.244.8.9"), Node: "n2"}, {Addr: addr("10.250.0.9"), Node: "n10"}}
	for _, tc := range []struct{ prefix, nextHop, reason string }{
		{"10.244.2.9/32", node10, ""},
		{"10.244.2.9/32", node2, bgp.ReasonWrongOwner},
		{"10.244.2.9/32", router, ""}, // n10 is on another subnet
		{"10.244.2.10/32", node10, bgp.ReasonWrongOwner},
		{"10.244.2.10/32", node2, ""}, // as good as its block
		{"10.244.2.10/32", router, bgp.ReasonNoBlock},
		{"10.244.1.7/32", node2, bgp.ReasonWrongOwner}, // out of this node's block
		{"10.244.1.7/32", router, bgp.ReasonNoBlock},
		{"10.244.8.9/32", node2, ""},
		{"10.244.8.9/32", node10, bgp.ReasonWrongOwner},
		{"10.244.8.9/32", router, bgp.ReasonNotBehind},
		{"10.244.8.10/32", node10, bgp.ReasonWrongOwner},
		{"10.244.10.9/32", node2, bgp.ReasonWrongOwner},
		{"10.244.11.5/32", node2, ""},
		{"10.244.11.5/32", node10, bgp.ReasonWrongOwner},
		{"10.250.0.7/32", node10, ""}, // given by hand
		{"10.250.0.200/32", router, ""},
		{"10.250.0.9/32", node10, ""},
		{"10.250.0.9/32", node2, bgp.ReasonWrongOwner},
		{"10.250.0.0/26", node10, bgp.ReasonWrongOwner},
	} {
		_, refused := bgp.NewOriginCheck(snap, "n1").Apply([]model.Learned{received(tc.prefix, tc.nextHop)}, nil)
		got := ""
		for _, r := range refused {
			got += r.Reason
		}
		if got != tc.reason {
			t.Errorf("%s via %s: refused %q, want %q", tc.prefix, tc.nextHop, got, tc.reason)
		}
	}
}
