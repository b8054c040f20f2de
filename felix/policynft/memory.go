package policynft

import (
	"net/netip"
	"reflect"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// memory keeps what was compiled last: of what is the same nothing is compiled again.
type memory struct {
	program  policy.Program
	prefixes []string
	sets     model.Sorted[*nftw.Set]   // of the program's sets
	chains   map[policy.ChainID]*table // each with what belongs to it
	table    *table                    // all of that
}

// compile turns a Program into a table. prefixes are what the names of pods'
// interfaces begin with. discard: nothing is logged.
func (m *memory) compile(p policy.Program, prefixes []string, discard bool) (*table, error) {
	var put, drop []*nftw.Set
	for was, is := range p.Sets.Since(m.program.Sets) {
		switch {
		case is == nil:
			drop = append(drop, compileSet(*was)...)
		case was == nil || *was != *is:
			put = append(put, compileSet(*is)...)
		}
	}
	m.sets = m.sets.With(put, drop)
	if t := m.table; t != nil && t.discard == discard && slices.Equal(m.prefixes, prefixes) && same(m.program.Endpoints, p.Endpoints) && same(m.program.Chains, p.Chains) && same(m.program.Hosts, p.Hosts) {
		next := *t
		table := *t.Table
		table.Sets = t.Sets.With(put, drop)
		next.Table = &table
		m.table, m.program = &next, p
		return m.table, nil
	}
	t, err := m.frame(p, prefixes, discard)
	if err != nil {
		return nil, err
	}
	t.Sets = t.Sets.With(slices.Collect(m.sets.All()), nil)
	m.table, m.program, m.prefixes = t, p, prefixes
	return t, nil
}

// frame is all of a table but the program's sets.
func (m *memory) frame(p policy.Program, prefixes []string, discard bool) (*table, error) {
	t, before := newTable(discard), m.chains
	if m.table == nil || m.table.discard != discard {
		before = nil
	}
	m.chains = make(map[policy.ChainID]*table, len(p.Chains))
	for id, c := range p.Chains {
		compiled := before[id] // equal ids, equal chains
		if compiled == nil {
			var err error
			if compiled, err = compileChain(c, discard); err != nil {
				return nil, err
			}
		}
		m.chains[id] = compiled
		t.add(compiled)
	}
	t.dispatch(p, prefixes)
	return t, t.Finish(generation)
}

// same reports whether two maps are one. Programs share what did not change, and nobody
// changes them.
func same[M ~map[K]V, K comparable, V any](a, b M) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

var (
	typePorts4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePorts6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// compileSet makes the two sets of a Set.
func compileSet(s *policy.Set) []*nftw.Set {
	t, out := nftw.NewTable(TableName), make([]*nftw.Set, 0, 2)
	for _, v4 := range []bool{true, false} {
		family, address, ports := uint8(4), nftables.TypeIPAddr, typePorts4
		if !v4 {
			family, address, ports = 6, nftables.TypeIP6Addr, typePorts6
		}
		name := setName(s.ID, family)
		switch s.Kind {
		case policy.Ports:
			out = append(out, t.NewSet(name, ports, false, members[policy.AddrPort]{s.Ports, v4, portElement}))
		case policy.Nets:
			out = append(out, t.NewSet(name, address, true, members[policy.Range]{s.Nets, v4, rangeElements}))
		default:
			out = append(out, t.NewSet(name, address, false, members[netip.Addr]{s.Addresses, v4, addressElement}))
		}
	}
	return out
}

// members are those of one IP version, as elements.
type members[T interface{ Compare(T) int }] struct {
	of      model.Sorted[T]
	v4      bool
	element func(T) (elements []nftables.SetElement, v4 bool)
}

func (m members[T]) All() []nftables.SetElement {
	out := make([]nftables.SetElement, 0, m.of.Len())
	for member := range m.of.All() {
		out = m.append(out, member)
	}
	return out
}

func (m members[T]) Since(before nftw.Elements) (remove, add []nftables.SetElement, known bool) {
	old, known := before.(members[T])
	if !known {
		return nil, nil, false
	}
	for was, is := range m.of.Since(old.of) {
		if is == nil {
			remove = m.append(remove, *was)
		} else if was == nil {
			add = m.append(add, *is)
		}
	}
	return remove, add, true
}

func (m members[T]) append(to []nftables.SetElement, member T) []nftables.SetElement {
	if e, v4 := m.element(member); v4 == m.v4 {
		return append(to, e...)
	}
	return to
}

func addressElement(a netip.Addr) ([]nftables.SetElement, bool) {
	return []nftables.SetElement{{Key: a.AsSlice()}}, a.Is4()
}

func rangeElements(r policy.Range) ([]nftables.SetElement, bool) {
	return nftw.Interval(r.First, r.Last), r.First.Is4()
}

func portElement(p policy.AddrPort) ([]nftables.SetElement, bool) {
	key := append(p.Addr.AsSlice(), p.Protocol, 0, 0, 0) // each part fills whole words
	key = append(append(key, binaryutil.BigEndian.PutUint16(p.Port)...), 0, 0)
	return []nftables.SetElement{{Key: key}}, p.Addr.Is4()
}
