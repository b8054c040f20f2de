package policy

import (
	"fmt"
	"slices"
)

// An epoch is how long a connection that policy has let through needs not be looked at again. Its
// number stands in those bits of the connection's mark that Program.EpochMask has, and is never 0 there.

// DefaultEpochMask are the bits of a connection's mark that nobody else is known to use on a node.
const DefaultEpochMask = 0xff000000

// FirstEpoch makes a number of anything.
func FirstEpoch(mask, of uint32) uint32 {
	if of &= mask; of != 0 {
		return of
	}
	return NextEpoch(mask, 0)
}

// NextEpoch gives the number behind one: the next greater one that has bits of the mask alone, and behind
// the greatest the least. mask is not 0.
func NextEpoch(mask, now uint32) uint32 {
	for {
		if now = ((now | ^mask) + 1) & mask; now != 0 {
			return now
		}
	}
}

// NarrowedBy gives the sets of which a member more may deny a packet: all but those in which rules that
// allow look for their packets. Some may be given twice.
func (c Chain) NarrowedBy() (out []SetID) {
	for _, r := range c.Rules {
		out = slices.Concat(out, r.Source.NotIn, r.Destination.NotIn)
		if r.Verdict != Allow && r.Verdict != Log {
			out = slices.Concat(out, r.Source.In, r.Destination.In)
		}
	}
	return out
}

// epochText says what an EpochMask means.
func epochText(mask uint32) string {
	if mask == 0 {
		return ""
	}
	return fmt.Sprintf("# established connections are evaluated again when policy is tightened: epoch in %#08x of their mark\n", mask)
}
