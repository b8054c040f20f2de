package policynft

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
)

// memory keeps the sets that were compiled last: of those whose members are the
// same nothing is compiled or compared again.
type memory struct {
	last map[policy.SetID]compiled
	next map[policy.SetID]compiled
}

type compiled struct {
	of   policy.Set
	sets []*nftw.Set // of IPv4, of IPv6
}

// turn begins a compilation; sets that the last one did not ask for are forgotten.
func (m *memory) turn() { m.last, m.next = m.next, map[policy.SetID]compiled{} }

func (m *memory) sets(s policy.Set, in *nftables.Table) []*nftw.Set {
	c, known := m.last[s.ID]
	if !known || !sameMembers(c.of, s) {
		c = compiled{s, compileSet(s, in)}
	}
	m.next[s.ID] = c
	return c.sets
}

// sameMembers reports whether two sets have the same members.
func sameMembers(a, b policy.Set) bool {
	return same(a.Addresses, b.Addresses) && same(a.Nets, b.Nets) && same(a.Ports, b.Ports)
}

// same compares lists. One that is shared is not looked at: Programs share what did
// not change, and nobody changes them.
func same[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	return len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b)
}

var (
	typePorts4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePorts6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// compileSet makes the two sets of a Set.
func compileSet(s policy.Set, in *nftables.Table) []*nftw.Set {
	var elements [2][]nftables.SetElement
	add := func(v4 bool, e ...nftables.SetElement) {
		i := 1
		if v4 {
			i = 0
		}
		elements[i] = append(elements[i], e...)
	}
	for _, a := range s.Addresses {
		add(a.Is4(), nftables.SetElement{Key: a.AsSlice()})
	}
	for _, r := range s.Nets {
		add(r.First.Is4(), nftw.Interval(r.First, r.Last)...)
	}
	for _, p := range s.Ports {
		key := append(p.Addr.AsSlice(), p.Protocol, 0, 0, 0) // each part fills whole words
		key = append(append(key, binaryutil.BigEndian.PutUint16(p.Port)...), 0, 0)
		add(p.Addr.Is4(), nftables.SetElement{Key: key})
	}
	key := [2]nftables.SetDatatype{nftables.TypeIPAddr, nftables.TypeIP6Addr}
	if s.Kind == policy.Ports {
		key = [2]nftables.SetDatatype{typePorts4, typePorts6}
	}
	scratch := &nftw.Table{Table: in}
	for i, family := range []uint8{4, 6} {
		scratch.Set(setName(s.ID, family), key[i], s.Kind == policy.Nets, elements[i])
	}
	return scratch.Sets
}
