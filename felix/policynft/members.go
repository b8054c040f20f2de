package policynft

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

var (
	typePorts4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePorts6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
)

// compileSet makes the two sets of a Set.
func compileSet(s *policy.Set) []*nftw.Set {
	t, out := nftw.NewTable(TableName), make([]*nftw.Set, 0, 2)
	for _, f := range model.Families {
		name, address, ports := setName(s.ID, f), nftw.AddrType(f), model.OfFamily(f, typePorts4, typePorts6)
		switch s.Kind {
		case policy.Ports:
			out = append(out, t.NewSet(name, ports, false, members[policy.AddrPort]{s.Ports, f, &ofPorts}))
		case policy.Nets:
			out = append(out, t.NewSet(name, address, true, members[policy.Range]{s.Nets, f, &ofRanges}))
		default:
			out = append(out, t.NewSet(name, address, false, members[netip.Addr]{s.Addresses, f, &ofAddresses}))
		}
	}
	return out
}

// members are those of one IP version, as elements.
type members[T interface{ Compare(T) int }] struct {
	of     model.Sorted[T]
	family model.Family
	*form[T]
}

// form is how members are written as elements.
type form[T any] struct {
	address func(T) netip.Addr
	append  func([]nftables.SetElement, T) []nftables.SetElement
	parse   func(key []byte) (T, bool) // nil: a member is more than a key
}

func (m members[T]) has(member T) bool { return model.FamilyOf(m.address(member)) == m.family }

// Len counts them.
func (m members[T]) Len() (n int) {
	for member := range m.of.All() {
		if m.has(member) {
			n++
		}
	}
	return n
}

// Has reports whether one has a key.
func (m members[T]) Has(key []byte) bool {
	member, ok := m.parse(key)
	if ok {
		_, ok = m.of.Get(member)
	}
	return ok
}

// All gives all of them.
func (m members[T]) All() []nftables.SetElement {
	out := make([]nftables.SetElement, 0, m.Len())
	for member := range m.of.All() {
		if m.has(member) {
			out = m.append(out, member)
		}
	}
	return out
}

// Since gives what is to be removed and added where other ones were before.
func (m members[T]) Since(before nftw.Elements) (remove, add []nftables.SetElement, known bool) {
	old, known := before.(members[T])
	if !known {
		return nil, nil, false
	}
	for was, is := range m.of.Since(old.of) {
		if is == nil && m.has(*was) {
			remove = m.append(remove, *was)
		} else if was == nil && m.has(*is) {
			add = m.append(add, *is)
		}
	}
	return remove, add, true
}

var (
	ofAddresses = form[netip.Addr]{
		address: func(a netip.Addr) netip.Addr { return a },
		append: func(to []nftables.SetElement, a netip.Addr) []nftables.SetElement {
			return append(to, nftables.SetElement{Key: a.AsSlice()})
		},
		parse: netip.AddrFromSlice,
	}
	ofRanges = form[policy.Range]{
		address: func(r policy.Range) netip.Addr { return r.First },
		append: func(to []nftables.SetElement, r policy.Range) []nftables.SetElement {
			return append(to, nftw.Interval(r.First, r.Last)...)
		},
	}
	ofPorts = form[policy.AddrPort]{
		address: func(p policy.AddrPort) netip.Addr { return p.Addr },
		append: func(to []nftables.SetElement, p policy.AddrPort) []nftables.SetElement {
			key := append(p.Addr.AsSlice(), p.Protocol, 0, 0, 0) // each part fills whole words
			key = append(append(key, binaryutil.BigEndian.PutUint16(p.Port)...), 0, 0)
			return append(to, nftables.SetElement{Key: key})
		},
		parse: func(key []byte) (p policy.AddrPort, ok bool) {
			if len(key) < 8 {
				return p, false
			}
			a, rest := key[:len(key)-8], key[len(key)-8:]
			p.Addr, ok = netip.AddrFromSlice(a)
			p.Protocol, p.Port = rest[0], binaryutil.BigEndian.Uint16(rest[4:6])
			return p, ok && rest[1]|rest[2]|rest[3]|rest[6]|rest[7] == 0
		},
	}
)
