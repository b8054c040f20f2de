package alloc_test

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// live is an endpoint of a pod that is called as its sandbox.
func live(a netip.Addr, sandbox string) alloc.Live {
	return alloc.Live{Addr: a, Handle: model.HandlePrefix + sandbox, Attrs: map[string]string{"namespace": "default", "pod": sandbox}}
}

// plug assigns an address to a pod, as an ADD does.
func (n *node) plug(t *testing.T, sandbox string, addrs ...netip.Addr) netip.Addr {
	t.Helper()
	got, err := n.Assign(t.Context(), alloc.Request{
		Handle: model.HandlePrefix + sandbox, V4: 1, Addrs: addrs, Attrs: map[string]string{"namespace": "default", "pod": sandbox},
	})
	if err != nil || len(got) != 1 {
		t.Fatalf("assign to %s: %v, %v", sandbox, got, err)
	}
	return got[0]
}

// remove deletes objects of the store behind everybody's back.
func remove(t *testing.T, s *ipamtest.Store, kinds ...string) {
	t.Helper()
	c, ctx := s.Client(nil), t.Context()
	for _, kind := range kinds {
		switch kind {
		case "blocks":
			for cidr := range s.Blocks() {
				removeOne(t, ctx, c.Blocks(), cidr)
			}
		case "affinities":
			for _, a := range s.Affinities() {
				removeOne(t, ctx, c.Affinities(), ipam.AffinityKey{Node: a.Node, CIDR: a.CIDR})
			}
		case "handles":
			for id := range s.Handles() {
				removeOne(t, ctx, c.Handles(), id)
			}
		}
	}
}

// removeOne deletes one, whoever writes it meanwhile.
func removeOne[K comparable, T any](t *testing.T, ctx context.Context, in ipam.Objects[K, T], key K) {
	t.Helper()
	for {
		value, rev, err := in.Get(ctx, key)
		if err == nil {
			err = in.Delete(ctx, value, rev)
		}
		if errors.Is(err, ipam.ErrConflict) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
}

// ownerOf is who has an address by the store.
func ownerOf(s *ipamtest.Store, a netip.Addr) string {
	for cidr, b := range s.Blocks() {
		if owner, ok := b.Owner(a); ok && cidr.Contains(a) {
			return owner.Handle
		}
	}
	return ""
}

// TestLiveIsStoredAgain loses what is stored in every way there is, under a
// running allocator and before a new one starts. The addresses of live endpoints
// are stored again, and the next pod gets another one.
func TestLiveIsStoredAgain(t *testing.T) {
	groups := map[string]func(t *testing.T, s *ipamtest.Store, before ipamtest.Snapshot){
		"everything": func(t *testing.T, s *ipamtest.Store, _ ipamtest.Snapshot) {
			remove(t, s, "blocks", "affinities", "handles")
		},
		"the block": func(t *testing.T, s *ipamtest.Store, _ ipamtest.Snapshot) { remove(t, s, "blocks") },
		"block rolled back": func(t *testing.T, s *ipamtest.Store, before ipamtest.Snapshot) {
			s.RollBack(before)
		},
		"store from a backup": func(t *testing.T, s *ipamtest.Store, before ipamtest.Snapshot) { s.Restore(before) },
		"its node's objects, by the controller": func(t *testing.T, s *ipamtest.Store, _ ipamtest.Snapshot) {
			for cidr, b := range s.Blocks() {
				var list []ipam.Release
				for al := range b.Allocations() {
					list = append(list, ipam.Release{Addr: al.Addr})
				}
				if err := alloc.ReleaseAddrs(t.Context(), s.Client(nil), cidr, list, 0); err != nil {
					t.Fatal(err)
				}
				err := ipam.ErrConflict
				for errors.Is(err, ipam.ErrConflict) { // the node writes meanwhile; the controller comes again, too
					err = alloc.ReleaseAffinity(t.Context(), s.Client(nil), "n1", cidr, alloc.AffinityRelease{})
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		},
	}
	for name, lose := range groups {
		for _, restart := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					s, p := ipamtest.New(), pool("p", "10.0.0.0/26", 28)
					n := start(t, s, "n1", nil, p)
					if err := n.EnsureBlock(t.Context(), model.IPv4); err != nil {
						t.Fatal(err)
					}
					before := s.Snapshot()
					eps := []alloc.Live{live(n.plug(t, "a"), "a"), live(n.plug(t, "b"), "b")}
					n.SetLive(eps)
					for range 100 { // revisions run ahead
						n.assign(t, "busy")
						n.release(t, "busy")
					}
					synctest.Wait()
					if restart {
						n.stop()
					}
					lose(t, s, before)
					if restart {
						n = startLive(t, s, "n1", eps, p)
					}
					// At once, before anything was noticed.
					first := live(n.plug(t, "c"), "c")
					eps = append(eps, first)
					n.SetLive(eps)
					time.Sleep(time.Second)
					synctest.Wait()
					eps = append(eps, live(n.plug(t, "d"), "d"))
					seen := map[netip.Addr]string{}
					for _, l := range eps {
						if was := seen[l.Addr]; was != "" {
							t.Errorf("%s is given to %s and to %s", l.Addr, was, l.Handle)
						}
						seen[l.Addr] = l.Handle
						if got := ownerOf(s, l.Addr); got != l.Handle {
							t.Errorf("%s of %s is stored as %q's", l.Addr, l.Handle, got)
						}
					}
					if got := n.Problems(); len(got) != 0 {
						t.Errorf("problems: %v", got)
					}
					// A handle that was stored again before all was lost is looked at once more.
					time.Sleep(3 * time.Minute)
					synctest.Wait()
					sound(t, s, 4)
					if wrong := mismatches(s); len(wrong) != 0 {
						t.Error(wrong)
					}
					n.SetLive(nil)
					for _, l := range eps {
						n.release(t, l.Handle)
					}
					sound(t, s, 0)
					n.stop()
				})
			})
		}
	}
}

// TestLiveInAnothersBlock: the block was claimed by another node meanwhile. What
// is free there is stored as borrowed; what is not is told, with both owners.
func TestLiveInAnothersBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/28", 28)
		n := start(t, s, "n1", nil, p)
		eps := []alloc.Live{live(n.plug(t, "a"), "a"), live(n.plug(t, "b"), "b")}
		n.stop()
		remove(t, s, "blocks", "affinities", "handles")
		other := start(t, s, "n2", nil, p)
		thief := other.plug(t, "thief", eps[0].Addr)
		n = startLive(t, s, "n1", eps, p)
		<-n.Ready()
		if got := ownerOf(s, eps[1].Addr); got != eps[1].Handle {
			t.Errorf("%s is stored as %q's", eps[1].Addr, got)
		}
		problems := n.Problems()
		if len(problems) != 1 {
			t.Fatalf("problems: %v", problems)
		}
		for _, part := range []string{eps[0].Addr.String(), "default/a", "pod default/thief on node n2"} {
			if !strings.Contains(problems[0].String(), part) {
				t.Errorf("%q is not in %s", part, problems[0])
			}
		}
		want := 2
		if got := n.Borrowed(); len(got) != want {
			t.Errorf("borrowed: %v", got)
		}
		sound(t, s, 2)
		// The other one goes: the address is stored without further ado.
		if thief != eps[0].Addr {
			t.Fatal(thief)
		}
		other.release(t, model.HandlePrefix+"thief")
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := ownerOf(s, eps[0].Addr); got != eps[0].Handle || len(n.Problems()) != 0 {
			t.Errorf("%s is stored as %q's; %v", eps[0].Addr, got, n.Problems())
		}
		sound(t, s, 2)
		n.stop()
		other.stop()
	})
}

// TestLiveBorrowedIsLost: nobody watches other nodes' blocks; they are read again.
func TestLiveBorrowedIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/28", 28)
		n1, n2 := start(t, s, "n1", nil, p), start(t, s, "n2", nil, p)
		n1.plug(t, "a")
		before := s.Snapshot()
		b := live(n2.plug(t, "b"), "b")
		n2.SetLive([]alloc.Live{b})
		s.RollBack(before)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if got := ownerOf(s, b.Addr); got != b.Handle {
			t.Errorf("%s is stored as %q's", b.Addr, got)
		}
		sound(t, s, 2)
		n1.stop()
		n2.stop()
	})
}

// TestOlderSandboxGivesWay: a pod that asks for an address which an older sandbox
// of its has by the store takes it over, on the same node and on another; not
// while that sandbox is there, and not from another pod.
func TestOlderSandboxGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/28", 29)
		ask := func(n *node, sandbox, pod string) (netip.Addr, error) {
			got, err := n.Assign(t.Context(), alloc.Request{Handle: model.HandlePrefix + sandbox, Addrs: []netip.Addr{addr("10.0.0.5")},
				Attrs: map[string]string{"namespace": "default", "pod": pod}})
			if err != nil {
				return netip.Addr{}, err
			}
			return got[0], nil
		}
		n1, n2 := start(t, s, "n1", nil, p), start(t, s, "n2", nil, p)
		if _, err := ask(n1, "c1", "db-0"); err != nil {
			t.Fatal(err)
		}
		n1.SetLive([]alloc.Live{{Addr: addr("10.0.0.5"), Handle: model.HandlePrefix + "c1", Attrs: map[string]string{"namespace": "default", "pod": "db-0"}}})
		if _, err := ask(n1, "c2", "db-0"); ipam.CodeOf(err) != ipam.CodeTaken {
			t.Errorf("while the sandbox is there: %v", err)
		}
		n1.stop()
		n1 = startLive(t, s, "n1", nil, p) // the machine lost its power
		if _, err := ask(n1, "c9", "other"); ipam.CodeOf(err) != ipam.CodeTaken {
			t.Errorf("another pod: %v", err)
		}
		if _, err := ask(n1, "c2", "db-0"); err != nil {
			t.Errorf("a new sandbox of the pod: %v", err)
		}
		sound(t, s, 1)
		if _, err := ask(n2, "c3", "db-0"); err != nil {
			t.Errorf("a new sandbox on another node: %v", err)
		}
		sound(t, s, 1)
		if got := ownerOf(s, addr("10.0.0.5")); got != model.HandlePrefix+"c3" {
			t.Errorf("it is %s's", got)
		}
		n1.release(t, model.HandlePrefix+"c1") // the runtime's late DEL
		n1.release(t, model.HandlePrefix+"c2")
		sound(t, s, 1)
		n1.stop()
		n2.stop()
	})
}

// TestLocked: while the cluster is locked nothing is written, whatever is asked
// for and whatever is lost. Afterwards all goes on.
func TestLocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, p := ipamtest.New(), pool("p", "10.0.0.0/26", 28)
		n := start(t, s, "n1", nil, p)
		a := live(n.plug(t, "a"), "a")
		n.SetLive([]alloc.Live{a})
		config := alloc.DefaultConfig()
		config.Locked = true
		n.SetConfig(config)
		remove(t, s, "blocks", "affinities", "handles")
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		_, err := n.Assign(t.Context(), alloc.Request{Handle: "b", V4: 1})
		for what, err := range map[string]error{
			"assign": err, "release": n.Release(t.Context(), a.Handle), "block": n.EnsureBlock(t.Context(), model.IPv4), "locked": n.Locked(),
		} {
			if ipam.CodeOf(err) != ipam.CodeLocked || !strings.Contains(err.Error(), "ClusterInformation default: spec.datastoreReady") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if len(s.Blocks())+len(s.Handles())+len(s.Affinities()) > 0 {
			t.Error("something was written")
		}
		n.SetConfig(alloc.DefaultConfig())
		synctest.Wait()
		if got := ownerOf(s, a.Addr); got != a.Handle || n.Locked() != nil {
			t.Errorf("afterwards %s is %q's", a.Addr, got)
		}
		n.stop()
	})
}
