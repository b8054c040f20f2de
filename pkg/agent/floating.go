package agent

import (
	"net/netip"
	"slices"
	"sync"
)

// floatingBook holds the floating addresses that BGP tells of: those that the
// kernel rewrites already.
type floatingBook struct {
	mu  sync.Mutex
	now []netip.Prefix
}

// set reports whether the addresses are other ones than before.
func (b *floatingBook) set(to []netip.Prefix) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if slices.Equal(b.now, to) {
		return false
	}
	b.now = to
	return true
}

func (b *floatingBook) get() []netip.Prefix {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}
