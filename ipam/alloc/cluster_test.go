package alloc_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/ipam/alloc"
	"github.com/muslin-net/muslin/ipam/ipamtest"
	"github.com/muslin-net/muslin/pkg/model"
)

// cluster is a few nodes on one store, beside the naive model of what they do: who
// has which address. What is stored gets lost or goes back, the pods run on, and
// no two of them may ever have one address.
type cluster struct {
	t     *testing.T
	rng   *rand.Rand
	store *ipamtest.Store
	pool  model.Pool
	nodes []*member
	plain map[netip.Addr]string // handle
	past  []ipamtest.Snapshot
	pods  int
	did   []string // the last operations, for a failure
}

// member is a node with its endpoints, which outlive its agent.
type member struct {
	*node
	name model.NodeName
	eps  []alloc.Live
}

func newCluster(t *testing.T, seed uint64, nodes int, pool model.Pool) *cluster {
	c := &cluster{t: t, rng: rand.New(rand.NewPCG(seed, 2)), store: ipamtest.New(), pool: pool, plain: map[netip.Addr]string{}}
	for i := range nodes {
		m := &member{name: model.NodeName(fmt.Sprint("n", i))}
		c.nodes = append(c.nodes, m)
		c.begin(m)
	}
	c.past = []ipamtest.Snapshot{c.store.Snapshot()}
	return c
}

func (c *cluster) begin(m *member) { m.node = startLive(c.t, c.store, m.name, m.eps, c.pool) }

func (c *cluster) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s\nafter %s", fmt.Sprintf(format, args...), strings.Join(c.did, ", "))
}

func (c *cluster) note(format string, args ...any) {
	c.did = append(c.did, fmt.Sprintf(format, args...))
	if len(c.did) > 30 {
		c.did = slices.Delete(c.did, 0, 1)
	}
}

func pick[T any](rng *rand.Rand, list []T) T { return list[rng.IntN(len(list))] }

// step does one random operation; one in fifty is a misfortune.
func (c *cluster) step() {
	m := pick(c.rng, c.nodes)
	switch n := c.rng.IntN(100); {
	case n < 2:
		c.misfortune()
		if c.othersStored(m) {
			c.plug(m) // at once, before anything was noticed
		}
		c.settle()
	case n < 4:
		c.restart(m)
	case n < 5:
		c.past = append(c.past, c.store.Snapshot())
		c.past = c.past[max(0, len(c.past)-8):]
	case n < 8:
		c.moveFixed()
	case n < 12:
		c.plugFixed(m)
	case n < 56:
		c.plug(m)
	default:
		c.unplug(m)
	}
}

// put makes an assigned address an endpoint's, and holds it to the model.
func (c *cluster) put(m *member, l alloc.Live) {
	if was := c.plain[l.Addr]; was != "" {
		c.fail("%s is given to %s on %s while %s has it", l.Addr, l.Handle, m.name, was)
	}
	c.plain[l.Addr] = l.Handle
	m.eps = append(m.eps, l)
	m.SetLive(m.eps)
}

func (c *cluster) ask(m *member, pod, sandbox string, addrs ...netip.Addr) error {
	l := alloc.Live{Handle: model.HandlePrefix + sandbox, Attrs: map[string]string{"namespace": "default", "pod": pod}}
	got, err := m.Assign(c.t.Context(), alloc.Request{Handle: l.Handle, V4: 1, Addrs: addrs, Attrs: l.Attrs})
	if err != nil {
		return err
	}
	l.Addr = got[0]
	c.put(m, l)
	return nil
}

func (c *cluster) plug(m *member) {
	c.pods++
	pod := fmt.Sprint("p", c.pods)
	c.note("plug %s on %s", pod, m.name)
	if err := c.ask(m, pod, pod); err != nil && ipam.CodeOf(err) != ipam.CodePoolExhausted {
		c.fail("plug %s on %s: %v", pod, m.name, err)
	}
}

func (c *cluster) plugFixed(m *member) {
	c.pods++
	pod, size := fmt.Sprint("p", c.pods), 1<<(32-c.pool.CIDR.Bits())
	a := c.pool.CIDR.Addr()
	for range c.rng.IntN(size) {
		a = a.Next()
	}
	c.note("plug %s on %s as %s", pod, m.name, a)
	if err := c.ask(m, pod, pod, a); err != nil && ipam.CodeOf(err) != ipam.CodeTaken {
		c.fail("plug %s on %s as %s: %v", pod, m.name, a, err)
	}
}

// moveFixed has a pod lose its sandbox without a DEL, as a node that loses its
// power does, and ask for its address in another.
func (c *cluster) moveFixed() {
	from := pick(c.rng, c.nodes)
	if len(from.eps) == 0 {
		return
	}
	i := c.rng.IntN(len(from.eps))
	l := from.eps[i]
	from.stop()
	from.eps = slices.Delete(slices.Clone(from.eps), i, i+1)
	delete(c.plain, l.Addr)
	c.begin(from)
	to := pick(c.rng, c.nodes)
	c.pods++
	c.note("move %s with %s from %s to %s", l.Attrs["pod"], l.Addr, from.name, to.name)
	if err := c.ask(to, l.Attrs["pod"], fmt.Sprint("again", c.pods), l.Addr); err != nil {
		c.fail("move %s with %s from %s to %s: %v", l.Attrs["pod"], l.Addr, from.name, to.name, err)
	}
}

func (c *cluster) unplug(m *member) {
	if len(m.eps) == 0 {
		return
	}
	i := c.rng.IntN(len(m.eps))
	l := m.eps[i]
	c.note("unplug %s (%s) on %s", l.Handle, l.Addr, m.name)
	m.eps = slices.Delete(slices.Clone(m.eps), i, i+1)
	m.SetLive(m.eps)
	if err := m.Release(c.t.Context(), l.Handle); err != nil {
		c.fail("unplug %s: %v", l.Handle, err)
	}
	delete(c.plain, l.Addr)
}

func (c *cluster) restart(m *member) {
	c.note("restart %s", m.name)
	m.stop()
	c.begin(m)
}

// misfortune loses something that is stored, or puts it back.
func (c *cluster) misfortune() {
	ctx, client := c.t.Context(), c.store.Client(nil)
	blocks := slices.Collect(maps.Keys(c.store.Blocks()))
	slices.SortFunc(blocks, netip.Prefix.Compare)
	switch what := c.rng.IntN(7); {
	case what == 0 && len(blocks) > 0:
		cidr := pick(c.rng, blocks)
		c.note("block %s lost", cidr)
		if b, rev, err := client.Blocks().Get(ctx, cidr); err == nil {
			_ = client.Blocks().Delete(ctx, b, rev)
		}
	case what == 1:
		c.note("blocks rolled back")
		c.store.RollBack(pick(c.rng, c.past))
	case what == 2:
		c.note("affinities lost")
		remove(c.t, c.store, "affinities")
	case what == 3:
		m := pick(c.rng, c.nodes)
		c.note("node %s deleted", m.name)
		c.free(m.name)
	case what == 4:
		c.note("store restored")
		c.store.Restore(pick(c.rng, c.past))
	case what == 5:
		c.note("handles lost, and blocks")
		remove(c.t, c.store, "handles", "blocks")
	default:
		c.note("product removed and put back")
		for _, m := range c.nodes {
			m.stop()
		}
		remove(c.t, c.store, "blocks", "affinities", "handles")
		for _, m := range c.nodes {
			c.begin(m)
		}
	}
}

// free does what a controller does for a node that it takes for gone.
func (c *cluster) free(node model.NodeName) {
	for cidr, b := range c.store.Blocks() {
		var list []ipam.Release
		for al := range b.Allocations() {
			if al.Owner["node"] == string(node) {
				list = append(list, ipam.Release{Addr: al.Addr, Handle: al.Handle, Sequence: &al.Sequence})
			}
		}
		_ = alloc.ReleaseAddrs(c.t.Context(), c.store.Client(nil), cidr, list, 0) // the node may be quicker
		_ = alloc.ReleaseAffinity(c.t.Context(), c.store.Client(nil), node, cidr, alloc.AffinityRelease{})
	}
}

// othersStored reports whether the store has every endpoint of the other nodes:
// of those it lacks this one cannot know.
func (c *cluster) othersStored(m *member) bool {
	blocks := c.store.Blocks()
	for _, other := range c.nodes {
		for _, l := range other.eps {
			if other != m && !storedAs(blocks, l) {
				return false
			}
		}
	}
	return true
}

func storedAs(blocks map[netip.Prefix]*ipam.Block, l alloc.Live) bool {
	for _, b := range blocks {
		if owner, ok := b.Owner(l.Addr); ok && owner.Handle == l.Handle {
			return true
		}
	}
	return false
}

// settle waits until the nodes have put right what they can, has the garbage
// collected, and holds what is stored to the model.
func (c *cluster) settle() {
	c.wait()
	blocks := c.store.Blocks()
	for _, m := range c.nodes {
		reported := fmt.Sprint(m.Problems())
		for _, l := range m.eps {
			if !storedAs(blocks, l) && !strings.Contains(reported, l.Addr.String()) {
				c.fail("%s of %s on %s is not stored, and nobody says so", l.Addr, l.Handle, m.name)
			}
		}
	}
	c.collect()
	c.wait()
	blocks = c.store.Blocks()
	stored := map[netip.Addr]string{}
	for _, b := range blocks {
		for al := range b.Allocations() {
			stored[al.Addr] = al.Handle
		}
	}
	if !maps.Equal(stored, c.plain) {
		c.fail("stored %v\nwant   %v", stored, c.plain)
	}
	for _, m := range c.nodes {
		if got := m.Problems(); len(got) > 0 {
			c.fail("problems of %s: %v", m.name, got)
		}
	}
	if wrong := slices.Concat(c.store.Broken(), mismatches(c.store), miscounted(c.store)); len(wrong) > 0 {
		c.fail("%v", wrong)
	}
}

func (c *cluster) wait() {
	time.Sleep(90 * time.Second) // virtual
	synctest.Wait()
}

// collect gives back what no endpoint has, as the cluster's collector does.
func (c *cluster) collect() {
	ctx, client := c.t.Context(), c.store.Client(nil)
	for cidr, b := range c.store.Blocks() {
		var list []ipam.Release
		for al := range b.Allocations() {
			if c.plain[al.Addr] != al.Handle {
				list = append(list, ipam.Release{Addr: al.Addr, Handle: al.Handle, Sequence: &al.Sequence})
			}
		}
		if err := alloc.ReleaseAddrs(ctx, client, cidr, list, 0); err != nil {
			c.fail("collect: %v", err)
		}
	}
	for id := range c.store.Handles() {
		if err := alloc.RecountHandle(ctx, client, id); err != nil {
			c.fail("collect: %v", err)
		}
	}
}

// miscounted are the handles that do not count what the blocks say.
func miscounted(s *ipamtest.Store) []string {
	want := map[string]map[netip.Prefix]int{}
	for cidr, b := range s.Blocks() {
		for al := range b.Allocations() {
			if want[al.Handle] == nil {
				want[al.Handle] = map[netip.Prefix]int{}
			}
			want[al.Handle][cidr]++
		}
	}
	var wrong []string
	handles := s.Handles()
	for id, h := range handles {
		if !maps.Equal(h.Blocks, want[id]) {
			wrong = append(wrong, fmt.Sprintf("handle %s counts %v, the blocks %v", id, h.Blocks, want[id]))
		}
	}
	for id := range want {
		if _, ok := handles[id]; !ok {
			wrong = append(wrong, "no handle "+id)
		}
	}
	return wrong
}

// TestClusterAgainstModel loses what is stored, again and again, under nodes that
// go on, and compares with a naive model who has which address. The long form has
// a million operations (soak_test.go).
func TestClusterAgainstModel(t *testing.T) { clusterAgainstModel(t, 20_000) }

func clusterAgainstModel(t *testing.T, ops int) {
	pools := []model.Pool{pool("p", "10.0.0.0/26", 29), pool("p", "10.0.0.0/24", 28), pool("p", "10.0.0.0/27", 31)}
	for i, p := range pools {
		synctest.Test(t, func(t *testing.T) {
			c := newCluster(t, uint64(i), 3+i, p)
			for range ops / len(pools) {
				c.step()
			}
			c.settle()
			for _, m := range c.nodes {
				m.stop()
			}
		})
	}
}
