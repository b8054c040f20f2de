package app

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/muslin-net/muslin/pkg/task"
)

// coming are addresses that pods are about to have, of which nobody has looked yet whether
// the kernel has connections of former owners. The zero value is none.
type coming struct {
	mu   sync.Mutex
	list []netip.Addr // those since done

	added, done task.Cell[uint64] // revisions: one more for each pod
}

// add gives the revision to wait for.
func (c *coming) add(addrs []netip.Addr) (rev uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, addrs...)
	rev = c.added.Value() + 1
	c.added.Set(rev)
	return rev
}

// until gives the addresses up to the newest revision. The slice must not be changed.
func (c *coming) until() (rev uint64, list []netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.added.Value(), slices.Clip(c.list)
}

// settle ends the wait for a revision, which had some addresses.
func (c *coming) settle(rev uint64, addresses int) {
	c.mu.Lock()
	c.list = c.list[addresses:]
	c.mu.Unlock()
	c.done.Set(rev)
}

// waits reports whether there is any.
func (c *coming) waits() bool { return c.added.Value() > c.done.Value() }

// Disconnect ends what the kernel has of connections of those who had addresses before.
// No route leads to them until it returns, so that none comes back.
func (p *policyLoop) Disconnect(ctx context.Context, addrs []netip.Addr) error {
	rev := p.coming.add(addrs)
	for {
		done, changed := p.coming.done.Get()
		if done >= rev {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if why := p.waiting(); why != "" {
				return fmt.Errorf("%s: %w", why, ctx.Err())
			}
			return ctx.Err()
		}
	}
}

// disconnect does what Disconnect waits for. Where nothing is judged, connections are
// nobody's.
func (p *policyLoop) disconnect(evaluated bool, next *task.Next) error {
	get(&p.coming.added, &next.Changed)
	rev, list := p.coming.until()
	if evaluated {
		if s := p.tenure.expect(list); len(s.addresses) > 0 {
			if err := p.end(s); err != nil {
				return fmt.Errorf("end connections of former owners: %w", err)
			}
		}
	}
	p.coming.settle(rev, len(list))
	return nil
}
