package alloc_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

var thePool = pool("p", "10.0.0.0/24", 26)

// put writes an affinity of node1 and a block of somebody's for theBlock, as
// far as they are given.
func put(t *testing.T, s *ipamtest.Store, state model.BlockState, blockOf string) {
	t.Helper()
	c := s.Client(nil)
	cidr := prefix("10.0.0.64/26")
	if state != "" {
		if _, err := c.Affinities().Create(t.Context(), ipam.Affinity{Node: "node1", CIDR: cidr, State: state, Type: "host"}); err != nil {
			t.Fatal(err)
		}
	}
	if blockOf != "" {
		b, err := ipam.NewBlock(cidr, "host:"+blockOf, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b.Assign(1, ipam.Attribute{Handle: "kept", Owner: map[string]string{"node": "node1"}}, nil)
		if _, err := c.Blocks().Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecovery starts a node upon every way in which a claim or a release can
// have stopped half way.
func TestRecovery(t *testing.T) {
	tests := []struct {
		name  string
		state model.BlockState
		block string
		after time.Duration // virtual
		owns  bool
	}{
		{name: "all well", state: model.BlockConfirmed, block: "node1", owns: true},
		{name: "crashed before the block", state: model.BlockPending},
		{name: "crashed before confirming", state: model.BlockPending, block: "node1", owns: true},
		{name: "lost the block to another", state: model.BlockPending, block: "node2"},
		{name: "confirmed, but another's", state: model.BlockConfirmed, block: "node2"},
		{name: "confirmed, but no block", state: model.BlockConfirmed},
		{name: "block without affinity", block: "node1", owns: true},
		{name: "release stopped after the block", state: model.BlockPendingDeletion},
		{name: "release stopped before the block", state: model.BlockPendingDeletion, block: "node1", after: 40 * time.Second, owns: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := ipamtest.New()
				put(t, s, tt.state, tt.block)
				n := start(t, s, "node1", nil, thePool)
				<-n.Ready()
				if tt.after > 0 {
					if b := n.Blocks(); len(b) != 1 || b[0].State != model.BlockPendingDeletion {
						t.Errorf("before the doubt is over: %v", b)
					}
					time.Sleep(tt.after)
				}
				synctest.Wait()
				blocks, affs := n.Blocks(), s.Affinities()
				if tt.owns {
					if len(blocks) != 1 || blocks[0].State != model.BlockConfirmed || len(affs) != 1 || affs[0].State != model.BlockConfirmed {
						t.Errorf("blocks %v, affinities %v; want one confirmed", blocks, affs)
					}
					if len(n.Allocations()) != 1 {
						t.Errorf("allocations: %v", n.Allocations())
					}
				} else if len(blocks) != 0 || len(affs) != 0 {
					t.Errorf("blocks %v, affinities %v; want none", blocks, affs)
				}
				if p := n.Problems(); len(p) != 0 {
					t.Errorf("problems: %v", p)
				}
				n.stop()
			})
		})
	}
}

// TestRepairIsRefused: what cannot be put right is told as a problem.
func TestRepairIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ipamtest.New()
		put(t, s, "", "node1")
		n := start(t, s, "node1", func(call string) ipamtest.Fault {
			if call == "create affinity" {
				return ipamtest.Refused
			}
			return ipamtest.None
		}, thePool)
		<-n.Ready()
		p := n.Problems()
		if len(p) != 1 || p[0].Object.Name != "node1-10-0-0-64-26" || !strings.Contains(p[0].Message, "10.0.0.64/26") {
			t.Errorf("problems: %v", p)
		}
		n.stop()
	})
}

// TestBlockTakenAway: the node's block is made affine to nobody while it has
// addresses. They become borrowed ones; releasing the last deletes the block.
func TestBlockTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := ipamtest.New()
		n := start(t, s, "node1", nil, thePool)
		a, b := n.assign(t, "a"), n.assign(t, "b")
		cidr := n.Blocks()[0].CIDR
		if err := alloc.ReleaseAffinity(t.Context(), s.Client(nil), "node1", cidr, alloc.AffinityRelease{RequireEmpty: true}); !errors.Is(err, alloc.ErrNotEmpty) {
			t.Errorf("release of a block in use: %v", err)
		}
		wrong := uint64(7)
		if err := alloc.ReleaseAffinity(t.Context(), s.Client(nil), "node1", cidr, alloc.AffinityRelease{Sequence: &wrong}); !errors.Is(err, ipam.ErrConflict) {
			t.Errorf("release at another sequence number: %v", err)
		}
		if err := alloc.ReleaseAffinity(t.Context(), s.Client(nil), "node1", cidr, alloc.AffinityRelease{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		want := []netip.Prefix{netip.PrefixFrom(a, 32), netip.PrefixFrom(b, 32)}
		if got := n.Borrowed(); !slices.Equal(got, want) || len(n.Blocks()) != 0 {
			t.Errorf("borrowed %v, blocks %v", got, n.Blocks())
		}
		if again := n.assign(t, "a"); again != a {
			t.Errorf("a had %s, now %s", a, again)
		}
		sound(t, s, 2)
		n.release(t, "a")
		sound(t, s, 1)
		n.release(t, "b")
		if len(s.Blocks()) != 0 {
			t.Errorf("blocks left: %v", s.Blocks())
		}
		if err := alloc.ReleaseAffinity(t.Context(), s.Client(nil), "node1", cidr, alloc.AffinityRelease{}); err != nil {
			t.Errorf("release of nothing: %v", err)
		}
		n.stop()
	})
}

// TestReleaseAffinityInterrupted fails each write of a release in turn; the
// node puts right what is left.
func TestReleaseAffinityInterrupted(t *testing.T) {
	for _, call := range []string{"get affinity", "get block", "update affinity", "delete block", "delete affinity", "update block"} {
		for _, fault := range []ipamtest.Fault{ipamtest.Refused, ipamtest.Conflict, ipamtest.Lost} {
			synctest.Test(t, func(t *testing.T) {
				s := ipamtest.New()
				n := start(t, s, "node1", nil, thePool)
				a := n.assign(t, "a")
				if call != "update block" {
					n.release(t, "a")
				}
				cidr := n.Blocks()[0].CIDR
				c := s.Client(func(got string) ipamtest.Fault {
					if got == call {
						return fault
					}
					return ipamtest.None
				})
				err := alloc.ReleaseAffinity(t.Context(), c, "node1", cidr, alloc.AffinityRelease{})
				if reads := strings.HasPrefix(call, "get"); err == nil && (!reads || fault != ipamtest.Conflict) {
					t.Errorf("%s, fault %d: no error", call, fault)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if wrong := mismatches(s); len(wrong) != 0 {
					t.Errorf("%s, fault %d: %v", call, fault, wrong)
				}
				if call == "update block" {
					if again := n.assign(t, "a"); again != a {
						t.Errorf("%s, fault %d: a had %s, now %s", call, fault, a, again)
					}
				}
				n.stop()
			})
		}
	}
}

// TestOutage: the datastore fails in the middle of an assignment and stays
// away. The assignment fails; when the datastore is back, nothing is left.
func TestOutage(t *testing.T) {
	for _, after := range []string{"create handle", "update block"} {
		synctest.Test(t, func(t *testing.T) {
			s := ipamtest.New()
			var away, over atomic.Bool
			n := start(t, s, "node1", func(call string) ipamtest.Fault {
				switch {
				case over.Load():
				case away.Load():
					return ipamtest.Refused
				case call == after:
					away.Store(true)
					return ipamtest.Lost
				}
				return ipamtest.None
			}, thePool)
			if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if got, err := n.Assign(ctx, alloc.Request{Handle: "h", V4: 1}); ipam.CodeOf(err) != ipam.CodeUnavailable {
				t.Errorf("got %v, %v", got, err)
			}
			over.Store(true)
			time.Sleep(time.Minute)
			synctest.Wait()
			sound(t, s, 0)
			n.assign(t, "h")
			sound(t, s, 1)
			n.stop()
		})
	}
}

// TestClaimsInACrowdedPool: all blocks but one exist, so that probing fails, and
// windows of names may; then all names are listed, once.
func TestClaimsInACrowdedPool(t *testing.T) {
	s := ipamtest.New()
	p := pool("p", "10.0.0.0/16", 26)
	c := s.Client(nil)
	for i := range 1024 {
		if i == 77 {
			continue
		}
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 4), byte(i % 4 * 64)}), 26)
		b, err := ipam.NewBlock(cidr, "host:other", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Blocks().Create(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	n := start(t, s, "node1", nil, p)
	if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
		t.Fatal(err)
	}
	if b := n.Blocks(); len(b) != 1 || b[0].CIDR != prefix("10.0.19.64/26") {
		t.Errorf("blocks: %v", b)
	}
	if calls := n.client.Calls(); calls["list names"] > 1 || calls["list window"] > 6 || calls["list block"] != 0 || calls["get block"] > 20 {
		t.Errorf("calls: %v", calls)
	}
	n2 := start(t, s, "node2", nil, p)
	if err := n2.EnsureBlock(t.Context(), model.IPv4); ipam.CodeOf(err) != ipam.CodePoolExhausted {
		t.Errorf("the pool is full: %v", err)
	}
	if err := n2.EnsureBlock(t.Context(), model.IPv6); ipam.CodeOf(err) != ipam.CodeNoPool {
		t.Errorf("no pool of the family: %v", err)
	}
}

// TestClaimsInATightPool: one block in a hundred is free, and every node finds
// one of its own without a list of all.
func TestClaimsInATightPool(t *testing.T) {
	s := ipamtest.New()
	p := pool("p", "10.0.0.0/13", 26)
	c := s.Client(nil)
	for i := range 8192 {
		if i%100 == 50 {
			continue
		}
		cidr := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i / 1024), byte(i / 4), byte(i % 4 * 64)}), 26)
		b, err := ipam.NewBlock(cidr, "host:other", time.Now())
		if err == nil {
			_, err = c.Blocks().Create(t.Context(), b)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	lists, seen := 0, map[netip.Prefix]bool{}
	for i := range 20 {
		n := start(t, s, model.NodeName(fmt.Sprint("node", i)), nil, p)
		if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
			t.Fatal(err)
		}
		if b := n.Blocks(); len(b) != 1 || seen[b[0].CIDR] {
			t.Errorf("blocks: %v", b)
		} else {
			seen[b[0].CIDR] = true
		}
		calls := n.client.Calls()
		if calls["list block"] != 0 || calls["get block"] > 20 || calls["create block"] != 1 {
			t.Errorf("calls: %v", calls)
		}
		lists += calls["list names"]
	}
	if lists > 2 {
		t.Errorf("%d of 20 nodes had to list all names", lists)
	}
}

// TestSettingTheSameIsQuiet: whoever sets the pools upon a hint must not be
// given another hint for it.
func TestSettingTheSameIsQuiet(t *testing.T) {
	n := start(t, ipamtest.New(), "node1", nil, thePool)
	n.assign(t, "a")
	for len(n.Changed()) > 0 {
		<-n.Changed()
	}
	n.SetPools([]model.Pool{thePool})
	n.SetConfig(alloc.DefaultConfig())
	n.SetReservations(nil)
	n.SetNode(model.Node{Name: "node1"})
	if len(n.Changed()) != 0 {
		t.Error("a hint came")
	}
	if n.String() != "ipam" {
		t.Error(n.String())
	}
}
