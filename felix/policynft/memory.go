package policynft

import (
	"maps"
	"reflect"
	"slices"

	"github.com/muslin-net/muslin/felix/internal/nftw"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// memory keeps what was compiled last: of what is the same nothing is compiled again.
type memory struct {
	program  policy.Program
	prefixes []string
	parts    map[policy.ChainID]*table // each of the program's chains, compiled, with what belongs to it
	uses     map[string]int            // how many parts have a set or a chain of that name
	narrows  map[string]int            // how often parts narrow by a set of that name
	frame    *table                    // all but the parts, the stamps and the program's sets
	stamps   *table                    // the chains of epochs, if there are any
	epoch    uint32                    // the number in them, or of those that were
	table    *table
}

// compile turns a Program into a table. prefixes are what the names of pods'
// interfaces begin with. discard: nothing is logged.
func (m *memory) compile(p policy.Program, prefixes []string, discard bool) (*table, error) {
	if m.table == nil || m.table.discard != discard {
		*m = memory{parts: map[policy.ChainID]*table{}, uses: map[string]int{}, narrows: map[string]int{}, epoch: m.epoch, table: newTable(discard)}
	}
	frame, err := m.framed(p, prefixes)
	if err != nil {
		return nil, err
	}
	stamps, err := m.stamping(p.EpochMask)
	if err != nil {
		return nil, err
	}
	come, gone, err := m.others(p.Chains)
	if err != nil {
		return nil, err
	}
	c := change{gone: map[string]Denial{}, come: map[string]Denial{}}
	c.sets(m.program.Sets, p.Sets)
	m.exchange(come, gone, &c)
	c.swap(m.frame, frame)
	c.swap(m.stamps, stamps)
	m.program, m.prefixes, m.frame, m.stamps, m.table = p, prefixes, frame, stamps, c.of(m.table, frame)
	if stamps != nil {
		m.table.Renew = m.renew
	}
	if !maps.Equal(c.gone, c.come) {
		m.table.denials = m.denials()
	}
	return m.table, nil
}

// framed gives the base chains, and the maps that lead to a Program's chains.
func (m *memory) framed(p policy.Program, prefixes []string) (*table, error) {
	if m.frame != nil && slices.Equal(m.prefixes, prefixes) && same(m.program.Endpoints, p.Endpoints) && same(m.program.Hosts, p.Hosts) && m.program.EpochMask == p.EpochMask {
		return m.frame, nil
	}
	t := newTable(m.table.discard)
	t.dispatch(p, prefixes)
	return t, t.Finish(generation)
}

// others compiles the chains that are others than before, and names those that are not any more.
func (m *memory) others(chains model.Sorted[policy.Chain]) (come map[policy.ChainID]*table, gone []policy.ChainID, err error) {
	come = map[policy.ChainID]*table{}
	for was, is := range chains.Since(m.program.Chains) {
		switch {
		case is == nil:
			gone = append(gone, was.ID)
		case was == nil || !was.Same(*is):
			if come[is.ID], err = compileChain(*is, m.table.discard); err != nil {
				return nil, nil, err
			}
		}
	}
	return come, gone, nil
}

// exchange has parts of a Program in the place of those that were.
func (m *memory) exchange(come map[policy.ChainID]*table, gone []policy.ChainID, c *change) {
	for _, id := range slices.AppendSeq(gone, maps.Keys(come)) {
		if was := m.parts[id]; was != nil {
			delete(m.parts, id)
			c.drop(was)
			m.count(was, -1)
		}
	}
	for id, is := range come {
		m.parts[id] = is
		c.put(is)
		m.count(is, 1)
	}
	c.keep(m.uses)
}

// count notes that a part comes or goes. Two may need the same set of ports, or end in the same chain.
func (m *memory) count(t *table, n int) {
	count := func(in map[string]int, name string) {
		if in[name] += n; in[name] == 0 {
			delete(in, name)
		}
	}
	for s := range t.Sets.All() {
		count(m.uses, s.Name)
	}
	for c := range t.Chains.All() {
		count(m.uses, c.Name)
	}
	for _, name := range t.narrows {
		count(m.narrows, name)
	}
}

// denials gives those of all parts.
func (m *memory) denials() map[string]Denial {
	out := maps.Clone(m.frame.denials)
	for _, p := range m.parts {
		maps.Copy(out, p.denials)
	}
	return out
}

// change is what of a table is to be another. What is put stays, even if it is dropped, too.
type change struct {
	putSets, dropSets     []*nftw.Set
	putChains, dropChains []*nftw.Chain
	gone, come            map[string]Denial
}

func (c *change) put(t *table) {
	maps.Copy(c.come, t.denials)
	c.putSets, c.putChains = slices.AppendSeq(c.putSets, t.Sets.All()), slices.AppendSeq(c.putChains, t.Chains.All())
}

func (c *change) drop(t *table) {
	maps.Copy(c.gone, t.denials)
	c.dropSets, c.dropChains = slices.AppendSeq(c.dropSets, t.Sets.All()), slices.AppendSeq(c.dropChains, t.Chains.All())
}

// swap puts one part of a table in the place of another; nil: there is none.
func (c *change) swap(was, is *table) {
	if was != is && was != nil {
		c.drop(was)
	}
	if was != is && is != nil {
		c.put(is)
	}
}

// keep takes back the dropping of what is still used.
func (c *change) keep(uses map[string]int) {
	c.dropSets = slices.DeleteFunc(c.dropSets, func(s *nftw.Set) bool { return uses[s.Name] > 0 })
	c.dropChains = slices.DeleteFunc(c.dropChains, func(o *nftw.Chain) bool { return uses[o.Name] > 0 })
}

// sets has the sets of a Program in the place of those that were.
func (c *change) sets(before, now model.Sorted[*policy.Set]) {
	for was, is := range now.Since(before) {
		switch {
		case is == nil:
			c.dropSets = append(c.dropSets, compileSet(*was)...)
		case was == nil || *was != *is:
			c.putSets = append(c.putSets, compileSet(*is)...)
		}
	}
}

// of gives a table with the change, and with another frame.
func (c *change) of(before, frame *table) *table {
	out, t := *before, *frame.Table
	t.Sets, t.Chains = before.Sets.With(c.putSets, c.dropSets), before.Chains.With(c.putChains, c.dropChains)
	out.Table = &t
	return &out
}

// same reports whether two maps are one. Programs share what did not change, and nobody
// changes them.
func same[M ~map[K]V, K comparable, V any](a, b M) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}
