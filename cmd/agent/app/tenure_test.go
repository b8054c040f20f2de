package app

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestTenure: an address is named once whenever it goes from one pod to another, also
// where the other has it before anybody looks, and when it is new.
func TestTenure(t *testing.T) {
	a, b := endpoint("a", "cali1", "10.0.0.1", "fd00::1"), endpoint("b", "cali2", "10.0.0.2")
	again := endpoint("c", "cali1", "10.0.0.1", "fd00::1")
	book := newTenure([]model.Endpoint{a})
	blocks := map[netip.Prefix]uint64{netip.MustParsePrefix("10.0.0.0/26"): 0, netip.MustParsePrefix("fd00::/122"): 0}
	for i, step := range []struct {
		pods []model.Endpoint
		want string
	}{
		{[]model.Endpoint{a}, "[]"},
		{[]model.Endpoint{a, b}, "[10.0.0.2]"},
		{[]model.Endpoint{again, b}, "[10.0.0.1 fd00::1]"},
		{[]model.Endpoint{b}, "[10.0.0.1 fd00::1]"},
		{[]model.Endpoint{b}, "[]"},
		{[]model.Endpoint{b, a}, "[]"},
		{nil, "[10.0.0.1 10.0.0.2 fd00::1]"},
		{nil, "[]"},
	} {
		book.found(book.search(nil))
		book.next(step.pods, nil, blocks)
		if got := fmt.Sprint(slices.SortedFunc(maps.Keys(book.unclean), netip.Addr.Compare)); got != step.want {
			t.Errorf("step %d: %v, want %s", i, got, step.want)
		}
	}
}

// TestFreeAddresses: what is free is in no hurry, until a pod has it; and what became free
// while there was no policy is not known to have no connections.
func TestFreeAddresses(t *testing.T) {
	a, again := endpoint("a", "cali1", "10.0.0.1"), endpoint("b", "cali2", "10.0.0.1")
	book := newTenure([]model.Endpoint{a})
	for i, step := range []struct {
		pods     []model.Endpoint
		unjudged bool
		want     string
	}{
		{nil, false, "1 false"},
		{[]model.Endpoint{again}, false, "1 true"},
		{nil, true, "0 false"},
		{[]model.Endpoint{a}, false, "1 true"},
	} {
		if book.next(step.pods, nil, nil); step.unjudged {
			book.unjudged()
		}
		if got := fmt.Sprint(len(book.unclean), " ", book.urgent()); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}

// TestFreeAddressesOfBlocks: an address of a block that was looked through is clean for its first pod and,
// once it has been looked for, for the next one. It is not if it was not free then, if somebody else has
// written the block since, or if the kernel may have kept a connection that was sent to it.
func TestFreeAddressesOfBlocks(t *testing.T) {
	block, other := netip.MustParsePrefix("10.0.0.0/26"), netip.MustParsePrefix("10.0.1.0/26")
	tunnel, lent := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.7")
	book := newTenure(nil)
	look := func() string {
		s := book.search(slices.Values([]netip.Addr{lent}))
		if s.has(lent) && !book.unclean[lent] || s.has(tunnel) && !book.unclean[tunnel] {
			t.Error("connections are looked for of an address that is not free")
		}
		book.found(s)
		return fmt.Sprint(s.blocks, s.has(netip.MustParseAddr("10.0.0.63")), s.has(netip.MustParseAddr("10.0.1.1")))
	}
	for i, step := range []struct {
		pods   string // an address
		tunnel bool
		blocks map[netip.Prefix]uint64
		want   string // is there a hurry, and if anything is to be looked for, what
	}{
		{"", true, map[netip.Prefix]uint64{block: 1}, "false [10.0.0.0/26] true false"},
		{"10.0.0.1", true, map[netip.Prefix]uint64{block: 1}, "false idle"},
		{"", true, map[netip.Prefix]uint64{block: 1}, "false [] false false"},
		{"10.0.0.1", true, map[netip.Prefix]uint64{block: 1}, "false idle"},
		{"10.0.0.7", true, map[netip.Prefix]uint64{block: 1}, "true [] false false"},
		{"", true, map[netip.Prefix]uint64{block: 1}, "false [] false false"},
		{"10.0.0.7", true, map[netip.Prefix]uint64{block: 1}, "false idle"},
		{"10.0.0.9", false, map[netip.Prefix]uint64{block: 1}, "true [] false false"}, // was a tunnel's
		{"10.0.0.2", false, map[netip.Prefix]uint64{block: 2}, "true [10.0.0.0/26] true false"},
		{"10.0.0.3", false, map[netip.Prefix]uint64{block: 2, other: 3}, "false [10.0.1.0/26] false true"},
		{"10.0.1.4", false, map[netip.Prefix]uint64{block: 2}, "true [] false false"},
		{"", false, map[netip.Prefix]uint64{block: 2, other: 0}, "false [] false false"},
		{"10.0.1.4", false, map[netip.Prefix]uint64{block: 2, other: 0}, "false idle"},
		{"10.0.1.5", false, map[netip.Prefix]uint64{block: 2, other: 0}, "true [] false false"},
		{"10.0.2.5", false, map[netip.Prefix]uint64{}, "true [] false false"},
	} {
		var pods []model.Endpoint
		if step.pods != "" {
			pods = append(pods, endpoint("a", "cali1", step.pods))
		}
		var ofSelf []netip.Addr
		if step.tunnel {
			ofSelf = append(ofSelf, tunnel)
		}
		book.next(pods, ofSelf, step.blocks)
		got := fmt.Sprint(book.urgent(), " ")
		if book.idle() {
			got += "idle"
		} else {
			got += look()
		}
		if got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}

// TestComingAddresses: what is looked for before a pod has an address is not looked for again, where what is sent to
// it meanwhile is dropped. Elsewhere it is.
func TestComingAddresses(t *testing.T) {
	old := endpoint("a", "cali1", "10.0.0.1", "10.0.9.1")
	next := endpoint("b", "cali2", "10.0.0.1", "10.0.9.1")
	for _, known := range []bool{true, false} {
		blocks := map[netip.Prefix]uint64{}
		if known {
			blocks[netip.MustParsePrefix("10.0.0.0/26")] = 1
		}
		book := newTenure([]model.Endpoint{old})
		if s := book.expect(old.Addresses); len(s.addresses) != 0 {
			t.Errorf("an address that a pod has is looked for: %v", s.addresses)
		}
		book.next(nil, nil, blocks)
		s := book.expect(next.Addresses)
		if len(s.addresses) != 2 {
			t.Errorf("before: %v", s.addresses)
		}
		book.found(s)
		if again := book.expect(next.Addresses); known == again.addresses[next.Addresses[0]] || !again.addresses[next.Addresses[1]] {
			t.Errorf("a block is known %v, and before it comes again: %v", known, again.addresses)
		}
		book.unclean = map[netip.Addr]bool{}
		book.next([]model.Endpoint{next}, nil, blocks)
		if known == book.unclean[next.Addresses[0]] || !book.unclean[next.Addresses[1]] {
			t.Errorf("a block is known %v, and once it is there: %v", known, book.unclean)
		}
	}
}
