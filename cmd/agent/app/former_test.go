package app

import (
	"net/netip"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
)

// A pod waits for the rest of the minute since its address became free; of a process that has just begun, as long
// as that takes of which it cannot know; and not at all of an address that no block gives out.
func TestHowLongAnAddressIsSomebodyElses(t *testing.T) {
	began := time.Now()
	f := newFreed(began)
	block := func() []ipam.Allocation {
		return []ipam.Allocation{{Addr: netip.MustParseAddr("10.0.0.1")}, {Addr: netip.MustParseAddr("10.0.0.2")}}
	}
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	f.add(addrs("10.0.0.1"), began.Add(10*time.Second))
	for _, c := range []struct {
		addrs []netip.Addr
		at    time.Duration
		want  time.Duration // since began; 0: not at all
	}{
		{addrs("10.0.0.1"), 20 * time.Second, 70 * time.Second},
		{addrs("10.0.0.1"), 70 * time.Second, 0},
		{addrs("10.0.0.2"), 20 * time.Second, 22 * time.Second},
		{addrs("10.0.0.2", "10.0.0.1"), 20 * time.Second, 70 * time.Second},
		{addrs("10.0.0.2"), 61 * time.Second, 0},
		{addrs("10.0.9.9"), 20 * time.Second, 0},
		{nil, 20 * time.Second, 0},
	} {
		want := time.Time{}
		if c.want != 0 {
			want = began.Add(c.want)
		}
		if got := f.until(c.addrs, block, began.Add(c.at)); !got.Equal(want) {
			t.Errorf("%v after %s: until %s, want %s", c.addrs, c.at, got.Sub(began), c.want)
		}
	}
	f.add(nil, began.Add(80*time.Second))
	if len(f.at) != 0 {
		t.Errorf("left after a minute: %v", f.at)
	}
}
