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
		clear(book.unclean)
		book.next(step.pods)
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
		if book.next(step.pods); step.unjudged {
			book.unjudged()
		}
		if got := fmt.Sprint(len(book.unclean), " ", book.urgent()); got != step.want {
			t.Errorf("step %d: %s, want %s", i, got, step.want)
		}
	}
}
