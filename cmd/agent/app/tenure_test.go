package app

import (
	"fmt"
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
		got := book.next(step.pods)
		slices.SortFunc(got, netip.Addr.Compare)
		if fmt.Sprint(got) != step.want {
			t.Errorf("step %d: %v, want %s", i, got, step.want)
		}
	}
}
