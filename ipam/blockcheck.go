package ipam

import (
	"errors"
	"fmt"
	"time"
)

// Validate holds the block to the rules of `calicoctl ipam check`: every
// attribute is referred to, no address was released in the future, and the
// queue of free ordinals is unique, disjoint from the assigned ones and
// complete. It returns every breach, joined.
func (b *Block) Validate(now time.Time) error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("block %s: "+format, append([]any{b.cidr}, args...)...))
	}
	used := make([]bool, len(b.attrs))
	for o, s := range b.slots {
		if s == free {
			continue
		}
		if int(s) >= len(b.attrs) {
			complain("address %s refers to attribute %d of %d", b.addr(o), s, len(b.attrs))
			continue
		}
		used[s] = true
	}
	for i, a := range b.attrs {
		if !used[i] {
			complain("attribute %d (handle %q) is referred to by no address", i, a.Handle)
		}
		if a.ReleasedAt.After(now) {
			complain("attribute %d was released in the future, at %s: the clock of who released it is ahead of this one", i, formatTime(a.ReleasedAt))
		}
	}
	queued := make([]bool, len(b.slots))
	for _, o := range b.unused {
		if queued[o] {
			complain("address %s is listed as free twice", b.addr(int(o)))
		}
		if b.slots[o] != free {
			complain("address %s is listed as free and assigned", b.addr(int(o)))
		}
		queued[o] = true
	}
	for o, s := range b.slots {
		if s == free && !queued[o] {
			complain("address %s is neither free nor assigned", b.addr(o))
		}
	}
	return errors.Join(errs...)
}
