package ipam_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/muslin-net/muslin/ipam"
)

// naive is a block as one would first think of it: a table and a queue.
type naive struct {
	addrs []netip.Addr
	owner map[netip.Addr]string    // assigned
	seq   map[netip.Addr]uint64    // when
	cools map[netip.Addr]time.Time // since when
	queue []netip.Addr
}

func newNaive(p netip.Prefix) *naive {
	n := &naive{owner: map[netip.Addr]string{}, seq: map[netip.Addr]uint64{}, cools: map[netip.Addr]time.Time{}}
	for a := p.Addr(); p.Contains(a); a = a.Next() {
		n.addrs = append(n.addrs, a)
	}
	n.queue = slices.Clone(n.addrs)
	return n
}

func (n *naive) assign(count int, handle string, seq uint64, reserved func(netip.Addr) bool) []netip.Addr {
	var out, rest []netip.Addr
	for _, a := range n.queue {
		if len(out) < count && (reserved == nil || !reserved(a)) {
			out = append(out, a)
			n.owner[a], n.seq[a] = handle, seq
		} else {
			rest = append(rest, a)
		}
	}
	n.queue = rest
	return out
}

// release frees or cools addresses, given in ascending order.
func (n *naive) release(addrs []netip.Addr, now time.Time, cooldown time.Duration) {
	for _, a := range addrs {
		delete(n.owner, a)
		if cooldown > 0 {
			n.cools[a] = now.Truncate(time.Second)
		} else {
			n.queue = append(n.queue, a)
		}
	}
}

func (n *naive) collect(now time.Time, cooldown time.Duration) {
	for _, a := range n.addrs {
		since, cools := n.cools[a]
		wait := cooldown
		if wait > 0 {
			wait += time.Second
		}
		if cools && now.Sub(since) >= wait {
			delete(n.cools, a)
			n.queue = append(n.queue, a)
		}
	}
}

func (n *naive) of(handle string) []netip.Addr {
	var out []netip.Addr
	for _, a := range n.addrs {
		if n.owner[a] == handle {
			out = append(out, a)
		}
	}
	return out
}

// pairing runs the same operations on a block and on the naive model.
type pairing struct {
	t     *testing.T
	rng   *rand.Rand
	block *ipam.Block
	plain *naive
	now   time.Time
}

func (p *pairing) handle() string { return fmt.Sprint("h", p.rng.IntN(8)) }

func (p *pairing) any() netip.Addr { return p.plain.addrs[p.rng.IntN(len(p.plain.addrs))] }

func (p *pairing) cooldown() time.Duration {
	return time.Duration(p.rng.IntN(2)*p.rng.IntN(30)) * time.Second
}

// step does one random operation.
func (p *pairing) step() {
	switch p.rng.IntN(10) {
	case 0, 1, 2:
		p.assign()
	case 3:
		p.assignAddr()
	case 4, 5:
		p.releaseHandle()
	case 6, 7:
		p.releaseAddr()
	case 8:
		cooldown := p.cooldown()
		p.block.Collect(p.now, cooldown)
		p.plain.collect(p.now, cooldown)
	case 9:
		p.now = p.now.Add(time.Duration(p.rng.IntN(20000)) * time.Millisecond)
		p.block.Bump()
		if p.rng.IntN(10) == 0 {
			p.throughJSON()
		}
	}
}

func (p *pairing) assign() {
	var reserved func(netip.Addr) bool
	if p.rng.IntN(2) == 0 {
		bit := byte(p.rng.IntN(4))
		reserved = func(a netip.Addr) bool { s := a.AsSlice(); return s[len(s)-1]&3 == bit }
	}
	n, h := p.rng.IntN(4), p.handle()
	got := p.block.Assign(n, owner(h), reserved)
	if want := p.plain.assign(n, h, p.block.Sequence(), reserved); !slices.Equal(got, want) {
		p.t.Fatalf("assign %d to %s: got %v, want %v", n, h, got, want)
	}
}

func (p *pairing) assignAddr() {
	a, h := p.any(), p.handle()
	err := p.block.AssignAddr(a, owner(h))
	was, taken := p.plain.owner[a]
	if (err != nil) != (taken && was != h) {
		p.t.Fatalf("assign %s to %s, which %q has: %v", a, h, was, err)
	}
	if err == nil && !taken {
		delete(p.plain.cools, a)
		p.plain.queue = slices.DeleteFunc(p.plain.queue, func(q netip.Addr) bool { return q == a })
		p.plain.owner[a], p.plain.seq[a] = h, p.block.Sequence()
	}
}

func (p *pairing) releaseHandle() {
	h, cooldown := p.handle(), p.cooldown()
	got, want := p.block.ReleaseHandle(h, p.now, cooldown), p.plain.of(h)
	if !slices.Equal(got, want) {
		p.t.Fatalf("release of %s: got %v, want %v", h, got, want)
	}
	p.plain.release(want, p.now, cooldown)
}

func (p *pairing) releaseAddr() {
	a, cooldown := p.any(), p.cooldown()
	was, taken := p.plain.owner[a]
	r := ipam.Release{Addr: a}
	fits := true
	if p.rng.IntN(2) == 0 {
		r.Handle = p.handle()
		fits = fits && (!taken || was == r.Handle)
	}
	if p.rng.IntN(2) == 0 {
		seq := p.plain.seq[a] + uint64(p.rng.IntN(2))
		r.Sequence = &seq
		fits = fits && (!taken || seq == p.plain.seq[a])
	}
	_, err := p.block.Release([]ipam.Release{r}, p.now, cooldown)
	if (err == nil) != fits {
		p.t.Fatalf("release %+v, which %q has since %d: %v", r, was, p.plain.seq[a], err)
	}
	if err == nil && taken {
		p.plain.release([]netip.Addr{a}, p.now, cooldown)
	}
}

func (p *pairing) throughJSON() {
	data, err := json.Marshal(p.block)
	if err != nil {
		p.t.Fatal(err)
	}
	p.block = new(ipam.Block)
	if err := json.Unmarshal(data, p.block); err != nil {
		p.t.Fatal(err)
	}
}

// compare holds the whole block to the model.
func (p *pairing) compare() {
	if err := p.block.Validate(p.now); err != nil {
		p.t.Fatal(err)
	}
	got := map[netip.Addr]string{}
	for a := range p.block.Allocations() {
		got[a.Addr] = a.Handle
		if a.Sequence != p.plain.seq[a.Addr] {
			p.t.Fatalf("%s was assigned at %d, want %d", a.Addr, a.Sequence, p.plain.seq[a.Addr])
		}
	}
	if len(got) != len(p.plain.owner) || p.block.InUse() != len(got) {
		p.t.Fatalf("%d in use, want %d", len(got), len(p.plain.owner))
	}
	for a, h := range p.plain.owner {
		if got[a] != h {
			p.t.Fatalf("%s belongs to %q, want %q", a, got[a], h)
		}
	}
	if free, _ := p.block.Available(nil); free != len(p.plain.queue) {
		p.t.Fatalf("%d free, want %d", free, len(p.plain.queue))
	}
	if p.block.Empty() != (len(p.plain.owner)+len(p.plain.cools) == 0) {
		p.t.Fatal("Empty")
	}
}

// TestBlockAgainstModel does random operations on blocks and on a naive model.
// The long form has a million of them (soak_test.go).
func TestBlockAgainstModel(t *testing.T) { againstModel(t, 50_000) }

func againstModel(t *testing.T, ops int) {
	cidrs := []string{"10.0.0.0/32", "10.0.0.0/31", "10.0.0.0/29", "10.0.3.64/26", "fd00::/128", "fd00::1:40/122", "fd00::/125"}
	for i, cidr := range cidrs {
		p := &pairing{t: t, rng: rand.New(rand.NewPCG(1, uint64(i))), block: newBlock(t, cidr), plain: newNaive(prefix(cidr)), now: epoch}
		for n := range ops / len(cidrs) {
			p.step()
			if n%16 == 0 {
				p.compare()
			}
		}
		p.compare()
	}
}

// FuzzBlockJSON: no text panics, and what is read can be worked with: nothing
// is assigned twice, and after a write every rule holds.
func FuzzBlockJSON(f *testing.F) {
	f.Add([]byte(`{"cidr":"10.0.0.0/30","allocations":[0,null,1,2],"unallocated":[1],"attributes":[{"handle_id":"a"},{"releasedAt":"2026-08-22T09:00:00Z"},{}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":3}}`))
	f.Add([]byte(`{"cidr":"fd00::/127","affinity":"virtual:x","allocations":[0,0],"unallocated":[0,0,1],"attributes":[{"handle_id":"a"}]}`))
	f.Add([]byte(`{"cidr":"10.0.0.0/32","allocations":[null],"unallocated":[],"attributes":[{},{}],"deleted":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		b := new(ipam.Block)
		if json.Unmarshal(data, b) != nil {
			return
		}
		had := map[netip.Addr]bool{}
		for a := range b.Allocations() {
			had[a.Addr] = true
		}
		_ = b.Validate(epoch)
		for _, a := range b.Assign(b.Size(), owner("fuzz"), nil) {
			if had[a] {
				t.Fatalf("%s was assigned twice", a)
			}
			had[a] = true
		}
		b.ReleaseHandle("fuzz", epoch, 0)
		b.Collect(epoch.AddDate(100, 0, 0), 0)
		b.Assign(1, owner("again"), nil)
		late := epoch.AddDate(9999, 0, 0)
		if err := b.Validate(late); err != nil && len(b.AddrsOf("again")) == 1 {
			t.Fatalf("after writes: %v", err)
		}
		again, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		c := new(ipam.Block)
		if err := json.Unmarshal(again, c); err != nil {
			t.Fatalf("%s does not come back: %v", again, err)
		}
		twice, err := json.Marshal(c)
		if err != nil || string(twice) != string(again) {
			t.Fatalf("%s became %s, %v", again, twice, err)
		}
	})
}
