package alloc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	// scanLife is how long a reading of all blocks of a pool is used.
	scanLife = 2 * time.Second
	// fullFor is how long a full pool is skipped without a look.
	fullFor = 5 * time.Second
	// reclaimTries bounds the attempts to take over one block.
	reclaimTries = 4
)

// poolUsage is what is known of a pool that has no free block.
type poolUsage struct {
	noBlocks time.Time // until then: do not look for a free or an abandoned block
	noRoom   time.Time // until then: do not look for an address to borrow
	at       time.Time // of the scan
	room     []hasFree
	empty    []emptied
	reserved int // addresses that are free but reserved
}

// hasFree is a block with addresses to borrow.
type hasFree struct {
	cidr netip.Prefix
	free int
}

// emptied is an empty block that another node, or nobody, holds.
type emptied struct {
	cidr netip.Prefix
	node model.NodeName
	seq  uint64
}

// poolUsageOf finds or adds an entry. Callers hold mu.
func (a *Allocator) poolUsageOf(pool string) *poolUsage {
	if a.full[pool] == nil {
		a.full[pool] = &poolUsage{}
	}
	return a.full[pool]
}

func (a *Allocator) knownFull(pool model.Pool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Now().Before(a.poolUsageOf(pool.Name).noBlocks)
}

func (a *Allocator) markFull(pools []model.Pool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, p := range pools {
		if f := a.poolUsageOf(p.Name); time.Now().After(f.noBlocks) {
			f.noBlocks = time.Now().Add(fullFor)
		}
	}
}

// scan reads every block of a pool: the price of a pool without free blocks,
// paid at most every scanLife.
func (a *Allocator) scan(ctx context.Context, pool model.Pool) error {
	a.mu.Lock()
	cooldown, set := a.set.config.cooldown(), a.set
	a.mu.Unlock()
	f := poolUsage{at: time.Now()}
	err := a.store.EachBlock(ctx, pool.CIDR, func(b *ipam.Block, _ ipam.Revision) bool {
		cidr := b.CIDR()
		_, held := b.Available(set.withheld(cidr))
		f.reserved += held
		a.mu.Lock()
		withheld := a.withheld(cidr, "")
		a.mu.Unlock()
		n := b.Room(f.at, cooldown, withheld)
		if b.Node() == a.node || b.Node() == "" && b.Affinity() != "" {
			return true // this node's own, or set aside for something that is no node
		}
		if n > 0 {
			f.room = append(f.room, hasFree{cidr: cidr, free: n})
		}
		if b.Vacant(f.at) && !set.excluded(cidr) {
			f.empty = append(f.empty, emptied{cidr: cidr, node: b.Node(), seq: b.Sequence()})
		}
		return true
	})
	if err != nil {
		return err
	}
	// Nodes start at different blocks, so that they rarely write the same one.
	rotate(f.room, hash(string(a.node)))
	rotate(f.empty, hash(string(a.node)))
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.poolUsageOf(pool.Name)
	f.noBlocks, f.noRoom = old.noBlocks, old.noRoom
	*old = f
	return nil
}

func rotate[T any](s []T, by uint32) {
	if len(s) < 2 {
		return
	}
	n := int(by % uint32(len(s)))
	slices.Reverse(s[:n])
	slices.Reverse(s[n:])
	slices.Reverse(s)
}

// reclaimIn takes over a block of the pool that another node, or nobody, has had
// empty for long, or returns errPoolFull. Another node's affinity is not this
// node's to write: see Vacate.
func (a *Allocator) reclaimIn(ctx context.Context, pool model.Pool) error {
	if err := a.scan(ctx, pool); err != nil {
		return err
	}
	a.mu.Lock()
	empty := slices.Clone(a.poolUsageOf(pool.Name).empty)
	a.mu.Unlock()
	for i, v := range empty {
		if i == reclaimTries {
			break
		}
		err := a.takeOver(ctx, v)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ipam.ErrConflict), errors.Is(err, ErrNotEmpty), errors.Is(err, errClaimed), errors.Is(err, errUnheard):
			// Somebody was quicker, or nobody gives it.
		default:
			return err
		}
	}
	return errPoolFull
}

// borrow finds other nodes' blocks with room. No parts: there is none.
func (a *Allocator) borrow(ctx context.Context, pools []model.Pool, missing int) ([]*part, error) {
	for _, pool := range pools {
		for fresh := false; ; fresh = true {
			a.mu.Lock()
			f := a.poolUsageOf(pool.Name)
			known := time.Now().Before(f.noRoom)
			young := fresh || time.Since(f.at) < scanLife
			var parts []*part
			if young && !known {
				parts = a.partsFrom(f.room, missing)
			}
			if fresh && len(parts) == 0 {
				f.noRoom = time.Now().Add(fullFor)
			}
			a.mu.Unlock()
			if len(parts) > 0 {
				return parts, nil
			}
			if known || fresh {
				break
			}
			if err := a.scan(ctx, pool); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// partsFrom picks blocks until enough is found. Callers hold mu.
func (a *Allocator) partsFrom(room []hasFree, missing int) []*part {
	var parts []*part
	for _, r := range room {
		if missing == 0 {
			break
		}
		if r.free == 0 {
			continue
		}
		n := min(r.free, missing)
		missing -= n
		parts = append(parts, &part{page: a.page(r.cidr), n: n, foreign: true})
	}
	return parts
}

// noteRoom corrects what a scan said of a block, from what the last write saw.
func (a *Allocator) noteRoom(cidr netip.Prefix, full bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, f := range a.full {
		for i := range f.room {
			if f.room[i].cidr != cidr {
				continue
			}
			f.room[i].free = max(0, f.room[i].free-1)
			if full {
				f.room[i].free = 0
			}
		}
	}
}

// exhausted tells which pools have no address left, and why none was added.
func (a *Allocator) exhausted(req Request, pools []model.Pool, why *cannotGrow) *ipam.Error {
	a.mu.Lock()
	defer a.mu.Unlock()
	reserved := 0
	for _, p := range pools {
		reserved += a.poolUsageOf(p.Name).reserved
	}
	e := &ipam.Error{Code: ipam.CodePoolExhausted, Object: req.object(),
		Detail: "no address is left in " + poolNames(pools) + ": " + why.detail, Hint: why.signal}
	if why.code == ipam.CodeBlockLimit && a.set.config.StrictAffinity {
		e.Code = ipam.CodeBlockLimit
		e.Detail += ", and strictAffinity forbids borrowing"
	}
	if reserved > 0 {
		e.Detail += fmt.Sprintf("; %d addresses are free but held by an IPReservation, or used by something else", reserved)
	}
	return e
}

func poolNames(pools []model.Pool) string {
	var names []string
	for _, p := range pools {
		names = append(names, p.Name)
	}
	return "IPPool " + strings.Join(names, ", ")
}
