package app

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix/policyrelay"
	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
)

const (
	// handOverFor is how long after an address has become free other nodes may still take it
	// for its former owner's: policy.md's "or 60 s".
	handOverFor = time.Minute
	// handOverUnknown is how long a pod waits of whose address this process, which has just
	// begun, does not know when it became free.
	handOverUnknown = 2 * time.Second
)

// formerOwners are those who had the addresses that pods get.
type formerOwners struct {
	*policyLoop
	alloc *alloc.Allocator
	freed *freed
	relay *policyrelay.Client // nil: agents watch pods, and nobody knows how far they are
	log   *slog.Logger
}

// HandOver waits until no agent takes addresses that were somebody else's a short while ago for theirs, at
// most until that while is over.
func (f formerOwners) HandOver(ctx context.Context, namespace, pod string, addrs []netip.Addr) error {
	if f.relay == nil || pod == "" {
		return nil
	}
	until := f.freed.until(addrs, f.alloc.Allocations, time.Now())
	if until.IsZero() {
		return nil
	}
	began := time.Now()
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	if err := f.relay.HandOver(wait, namespace, pod, addrs); err != nil && ctx.Err() == nil {
		f.log.Info("not all nodes may know the new owner of an address", "pod", namespace+"/"+pod, "addresses", addrs, "waited", time.Since(began), "error", err)
	}
	return ctx.Err()
}

// freed are addresses that pods of this node gave back, each with when that was.
type freed struct {
	mu    sync.Mutex
	began time.Time // of this process; what became free before is not known
	at    map[netip.Addr]time.Time
}

func newFreed(now time.Time) *freed { return &freed{began: now, at: map[netip.Addr]time.Time{}} }

// add notes that addresses are free from now on.
func (f *freed) add(addrs []netip.Addr, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.at, func(_ netip.Addr, at time.Time) bool { return now.Sub(at) > handOverFor })
	for _, a := range addrs {
		f.at[a] = now
	}
}

// until gives how long a pod with some addresses has to wait at most; zero: not at all. Addresses
// that no block gives out are not waited for: others learn of them from the kubelet.
func (f *freed) until(addrs []netip.Addr, blocks func() []ipam.Allocation, now time.Time) (out time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range addrs {
		end := f.at[a].Add(handOverFor)
		of := func(al ipam.Allocation) bool { return al.Addr == a }
		if f.at[a].IsZero() && now.Sub(f.began) < handOverFor && slices.ContainsFunc(blocks(), of) {
			end = now.Add(handOverUnknown)
		}
		if end.After(now) && end.After(out) {
			out = end
		}
	}
	return out
}
