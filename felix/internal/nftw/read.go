package nftw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// kernel is what the kernel has of the table: the digests of its chains and its
// sets. Without the chain "generation" of the wanted table its sets are not those
// of ours, and the table has to be written anew.
type kernel struct {
	there  bool
	chains model.Sorted[*Chain] // without a digest where the rules are not those wanted
	sets   model.Sorted[*Set]   // without elements where they are not wanted
}

// read asks for what want has, too.
func (w *Writer) read(want *Table) (kernel, error) {
	if _, err := w.conn.ListTableOfFamily(w.name, nftables.TableFamilyINet); err != nil {
		if absent(err) {
			return kernel{}, nil
		}
		return kernel{}, err
	}
	have := kernel{there: true}
	if want == nil {
		return have, nil
	}
	conn, err := nl.Dial(w.ns, unix.NETLINK_NETFILTER)
	if err != nil {
		return kernel{}, err
	}
	defer conn.Close()
	d := dumper{conn, w.name}
	if have.chains, err = w.readChains(d, want); err != nil || !have.shaped(want) {
		return have, err
	}
	named, err := w.conn.GetSets(want.Table)
	if err != nil {
		return kernel{}, err
	}
	var sets []*Set
	for _, s := range named {
		if s.Anonymous {
			continue
		}
		is := &Set{Set: s}
		if wanted, found := want.Sets.Get(is); found {
			if is, err = w.readSet(d, wanted); err != nil {
				return kernel{}, err
			}
		}
		sets = append(sets, is)
	}
	have.sets = model.SortedOf(sets)
	return have, nil
}

// readSet gives want where the kernel's set is as that, else what it has.
func (w *Writer) readSet(d dumper, want *Set) (*Set, error) {
	if same, err := d.has(want); same || err != nil {
		return want, err
	}
	elements, err := w.conn.GetSetElements(want.Set)
	return &Set{Set: want.Set, Elements: list(readable(want, elements))}, err
}

// Count adds up the packets that the counters of a chain have seen. 0 if there is no such
// chain.
func (w *Writer) Count(chain string) (packets uint64, err error) {
	rules, err := w.Rules(chain)
	if err != nil {
		return 0, err
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if c, ok := e.(*expr.Counter); ok {
				packets += c.Packets
			}
		}
	}
	return packets, nil
}

// Rules gives what the kernel has in a chain, none if there is no such chain.
func (w *Writer) Rules(chain string) ([]*nftables.Rule, error) {
	w.apply.Lock()
	defer w.apply.Unlock()
	t := NewTable(w.name).Table
	rules, err := w.conn.GetRules(t, &nftables.Chain{Table: t, Name: chain})
	switch {
	case absent(err):
		return nil, nil
	case err != nil:
		return nil, w.failed(fmt.Errorf("read chain %s of table inet %s: %w", chain, w.name, err))
	}
	return rules, nil
}

// readable gives elements as they are written: intervals sorted; verdicts as such, which
// the library leaves as bytes, the kind big-endian at 4 to 8, then an attribute with the
// chain.
func readable(s *Set, elements []nftables.SetElement) []nftables.SetElement {
	switch {
	case s.halves():
		return inOrder(elements)
	case !s.leads():
		return elements
	}
	for i, e := range elements {
		if e.VerdictData != nil || len(e.Val) < 8 {
			continue
		}
		v := &expr.Verdict{Kind: expr.VerdictKind(int32(binary.BigEndian.Uint32(e.Val[4:8])))}
		if len(e.Val) > 12 {
			v.Chain = string(bytes.TrimRight(e.Val[12:], "\x00"))
		}
		elements[i].VerdictData, elements[i].Val = v, nil
	}
	return elements
}

// inOrder sorts beginnings and ends; one interval may end where the next begins. An end
// of nothing is the kernel's way to say that there was nothing before.
func inOrder(elements []nftables.SetElement) []nftables.SetElement {
	slices.SortFunc(elements, func(a, b nftables.SetElement) int {
		if c := bytes.Compare(a.Key, b.Key); c != 0 || a.IntervalEnd == b.IntervalEnd {
			return c
		}
		if a.IntervalEnd {
			return -1
		}
		return 1
	})
	out, open := elements[:0], false
	for _, e := range elements {
		if !e.IntervalEnd || open {
			out = append(out, e)
		}
		open = !e.IntervalEnd
	}
	return out
}

// shaped reports whether the table has the kinds of sets that t has.
func (k kernel) shaped(t *Table) bool {
	g, _ := k.chains.Get(t.generation)
	return k.there && g != nil && g.digest == t.generation.digest
}

func absent(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }

// readChains gives the table's chains, with the digests of those that are as in want. A rule cannot be changed, only replaced: one with our mark is ours as it
// was written. A chain with another hook or policy than wanted makes the whole
// table another one.
func (w *Writer) readChains(d dumper, want *Table) (model.Sorted[*Chain], error) {
	var none model.Sorted[*Chain]
	all, err := w.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return none, err
	}
	marks, err := d.marks()
	if err != nil {
		return none, err
	}
	var out []*Chain
	for _, c := range all {
		if c.Table.Name != w.name {
			continue
		}
		is := &Chain{Chain: c}
		if wanted, found := want.Chains.Get(is); found {
			if !sameHook(c, wanted.Chain) {
				return none, nil
			}
			if slices.EqualFunc(marks[c.Name], wanted.Rules, marked) {
				is = wanted
			}
		}
		out = append(out, is)
	}
	return model.SortedOf(out), nil
}

func marked(mark string, r *nftables.Rule) bool {
	return mark == string(userdata.Get(r.UserData, typeMark))
}

func sameHook(a, b *nftables.Chain) bool {
	return a.Type == b.Type && equalPointers(a.Hooknum, b.Hooknum) && equalPointers(a.Priority, b.Priority) &&
		equalPointers(a.Policy, b.Policy)
}

func equalPointers[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}
