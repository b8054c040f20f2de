package kube

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// poolGrace is how long a pool that vanished still counts, as one being deleted.
// kubectl that takes all of Muslin away takes the pools first; the agents end within
// seconds of that, and what they leave in the kernel is what the pods have.
const poolGrace = time.Minute

// vanished keeps pools that are no longer in the API. No pod gets an address of one,
// but routes, tunnels and masquerading stay: while blocks of it are in use the
// controller's finalizer holds a pool, so one that goes nevertheless was taken from
// under its pods. It counts for poolGrace, and on as long as there is no pool at
// all, which nobody means, unless another pool overlaps it.
type vanished struct {
	last map[string]model.Pool // in the API when last asked
	gone map[string]gonePool
	wake *time.Timer // asks again when the next one stops to count
}

type gonePool struct {
	pool  model.Pool
	until time.Time
}

// with adds to the pools in the API, sorted by name, those that vanished and still
// count at now, and tells when the first of these stops to: zero for never.
func (v *vanished) with(live []model.Pool, now time.Time) (pools []model.Pool, next time.Time) {
	names := make(map[string]model.Pool, len(live))
	for _, p := range live {
		names[p.Name] = p
	}
	for name, p := range v.last {
		if _, there := names[name]; !there {
			p.Deleting = true
			v.gone[name] = gonePool{p, now.Add(poolGrace)}
		}
	}
	v.last = names
	maps.DeleteFunc(v.gone, func(_ string, g gonePool) bool {
		replaced := slices.ContainsFunc(live, func(p model.Pool) bool { return p.Name == g.pool.Name || p.CIDR.Overlaps(g.pool.CIDR) })
		return replaced || len(live) > 0 && !now.Before(g.until)
	})
	pools = slices.Clone(live)
	for _, g := range v.gone {
		pools = append(pools, g.pool)
		if len(live) > 0 && (next.IsZero() || g.until.Before(next)) {
			next = g.until
		}
	}
	slices.SortFunc(pools, func(a, b model.Pool) int { return cmp.Compare(a.Name, b.Name) })
	return pools, next
}

// poolsInForce gives the pools of the API and those that vanished and still count.
// The caller holds mu.
func (c *Cluster) poolsInForce() []model.Pool {
	now := time.Now()
	pools, next := c.vanished.with(c.pools.values(), now)
	if c.vanished.wake != nil {
		c.vanished.wake.Stop()
	}
	if !next.IsZero() {
		c.vanished.wake = time.AfterFunc(next.Sub(now), func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.pools.noteRows()
		})
	}
	return pools
}
