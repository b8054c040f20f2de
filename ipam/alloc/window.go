package alloc

import (
	"context"
	"errors"
	"net/netip"

	"github.com/muslin-net/muslin/ipam"
)

const (
	// windows is how many windows of names are read before all of them are.
	windows = 6
	// windowWalk bounds how many blocks of the pool are held against one
	// window, which takes 5 ms of this process's time at most.
	windowWalk = 1 << 16
)

// window is a stretch of the order of blocks' names of which is known what
// exists.
type window struct {
	first, last string // inclusive; no last: to the end
	exists      map[string]bool
}

// readWindow reads the names from a block's on.
func (a *Allocator) readWindow(ctx context.Context, from netip.Prefix) (window, error) {
	w := window{first: ipam.BlockName(from)}
	names, more, err := a.store.NamesFrom(ctx, w.first)
	if err != nil {
		return w, err
	}
	w.exists = make(map[string]bool, len(names))
	for _, name := range names {
		w.exists[name] = true
	}
	if more && len(names) > 0 {
		w.last = names[len(names)-1]
	}
	return w, nil
}

// vacant reports whether the block of that name is known not to exist.
func (w *window) vacant(name []byte) bool {
	if string(name) < w.first || w.last != "" && string(name) > w.last {
		return false
	}
	return !w.exists[string(name)]
}

// claimInWindows looks for a free block where hardly one in a hundred is: a
// window of a few hundred names shows several, and costs as much as two dozen
// probes. Each begins at the next place of the node's own order, so that nodes
// look at different ones.
func (a *Allocator) claimInWindows(ctx context.Context, w walk) error {
	name := make([]byte, 0, 64)
	for k := range uint64(windows) {
		seen, err := a.readWindow(ctx, w.at(k))
		if err != nil {
			return err
		}
		var vacant []netip.Prefix
		for i := uint64(0); i < min(w.count, windowWalk) && len(vacant) < claimTries; i++ {
			cidr := w.at(i)
			if name = ipam.AppendBlockName(name[:0], cidr); seen.vacant(name) && a.worthProbing(cidr) {
				vacant = append(vacant, cidr)
			}
		}
		if err := a.claimOneOf(ctx, vacant); !errors.Is(err, errPoolFull) {
			return err
		}
	}
	return errPoolFull
}
