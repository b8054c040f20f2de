package policy

import (
	"math/bits"
	"slices"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestEpochs: a number has bits of the mask alone, is never 0, and comes back when all others were there.
func TestEpochs(t *testing.T) {
	for _, mask := range []uint32{DefaultEpochMask, 1 << 31, 0xff001f00, 0x5, 0xffff0000} {
		first := FirstEpoch(mask, 0x12345678)
		if FirstEpoch(mask, 0) == 0 {
			t.Errorf("%#x begins with no number", mask)
		}
		seen := map[uint32]bool{}
		for now := first; !seen[now]; now = NextEpoch(mask, now) {
			if now == 0 || now&^mask != 0 {
				t.Fatalf("%#x is no number of %#x", now, mask)
			}
			seen[now] = true
		}
		if want := 1<<bits.OnesCount32(mask) - 1; len(seen) != want || !seen[first] {
			t.Errorf("%#x has %d numbers, want %d", mask, len(seen), want)
		}
	}
}

// TestNarrowedBy: a member more of a set denies nothing where a rule allows what is in it.
func TestNarrowedBy(t *testing.T) {
	c := Chain{Rules: []Rule{
		{Verdict: Allow, Source: Side{In: []SetID{"a"}, NotIn: []SetID{"b"}}, Destination: Side{In: []SetID{"c"}, NotIn: []SetID{"d"}}},
		{Verdict: Log, Source: Side{In: []SetID{"e"}}},
		{Verdict: Deny, Source: Side{In: []SetID{"f"}}},
		{Verdict: Pass, Destination: Side{In: []SetID{"g"}}},
	}}
	got := c.NarrowedBy()
	slices.Sort(got)
	if want := []SetID{"b", "d", "f", "g"}; !slices.Equal(got, want) {
		t.Errorf("narrowed by %v, want %v", got, want)
	}
}

// TestEpochMask: a Program has the mask that it was asked for last, with policies and without, and its
// text says so.
func TestEpochMask(t *testing.T) {
	in := Input{EndpointsSynced: true, View: model.PolicyView{Synced: true, Revision: 1}}
	var e Engine
	for _, mask := range []uint32{0, DefaultEpochMask, 0xff00, 0} {
		in.EpochMask = mask
		p, _ := e.Compile(in)
		if p.EpochMask != mask || strings.Contains(p.String(), "epoch") != (mask != 0) {
			t.Errorf("mask %#x: %s", mask, p)
		}
	}
}
