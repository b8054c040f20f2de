package route

import (
	"context"
	"slices"
	"testing"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// TestAddressBounces takes the last address of a link away and gives it back, again
// and again. The kernel tells of that before it silently takes the routes, so that
// who looks at once sees them there for the last time.
func TestAddressBounces(t *testing.T) {
	l := newLab(t)
	r := open(t, l)
	s := state(true, append(many(l, 100), unicast("10.65.3.0/26", l.hop("10.2.0.254", "eth1")))...)
	keep(t, r, func() felix.State { return s })
	apply(t, r, s)
	want := l.ours()
	for range 100 {
		l.node.Run("ip", "addr", "del", "10.2.0.1/24", "dev", "eth1")
		l.node.Run("ip", "addr", "add", "10.2.0.1/24", "dev", "eth1")
		nstest.Eventually(t, "an address that bounced is repaired", func() bool {
			_ = r.Apply(context.Background(), s)
			return slices.Equal(want, l.ours())
		})
	}
}
