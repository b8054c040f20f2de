package app

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// A claim that is pending asks for a block only where somebody has it.
func TestAskedFor(t *testing.T) {
	block := func(node, cidr string, state model.BlockState) model.Block {
		return model.Block{Node: model.NodeName(node), CIDR: netip.MustParsePrefix(cidr), State: state}
	}
	got := requestedFrom([]model.Block{
		block("n3", "10.0.0.64/26", model.BlockPending), block("n2", "10.0.0.64/26", model.BlockConfirmed), block("n1", "10.0.0.64/26", model.BlockPending),
		block("n1", "10.0.0.0/26", model.BlockPending),                                                     // nobody has it
		block("n2", "10.0.0.128/26", model.BlockConfirmed),                                                 // nobody asks
		block("n1", "10.0.0.192/26", model.BlockPending), block("n2", "10.0.0.192/26", model.BlockPending), // a race
		block("n1", "10.0.1.0/26", model.BlockPending), block("n2", "10.0.1.0/26", model.BlockPendingDeletion),
		block("", "10.0.2.0/26", model.BlockPending), block("n2", "10.0.2.0/26", model.BlockConfirmed), // no node asks
	})
	want := []ipam.AffinityKey{{Node: "n1", CIDR: netip.MustParsePrefix("10.0.0.64/26")}, {Node: "n1", CIDR: netip.MustParsePrefix("10.0.1.0/26")}}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
