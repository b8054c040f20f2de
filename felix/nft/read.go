package nft

import (
	"bytes"
	"errors"
	"os"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
)

// kernel is what the kernel has of the table: the digests of its chains and the
// elements of its sets. Without the chain "generation" of a program its sets are
// not those of the program, and the table has to be written anew.
type kernel struct {
	there  bool
	chains map[string]string // "": other rules than ours
	sets   map[string]map[string]nftables.SetElement
}

// read asks for what want has, too.
func (r *Reconciler) read(want *program) (kernel, error) {
	if _, err := r.conn.ListTableOfFamily(felix.TableName, nftables.TableFamilyINet); err != nil {
		if absent(err) {
			return kernel{}, nil
		}
		return kernel{}, err
	}
	have := kernel{there: true, sets: map[string]map[string]nftables.SetElement{}}
	var err error
	if have.chains, err = r.readChains(want); err != nil || !have.shaped(want) {
		return have, err
	}
	for _, s := range want.sets {
		elements, err := r.conn.GetSetElements(s.Set)
		if absent(err) {
			return kernel{there: true}, nil
		}
		if err != nil {
			return kernel{}, err
		}
		have.sets[s.Name] = index(elements)
	}
	return have, nil
}

// shaped reports whether the table has the sets of a program.
func (k kernel) shaped(p *program) bool {
	g := p.chains[len(p.chains)-1] // "generation"
	return k.there && k.chains[g.Name] == g.digest
}

func absent(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }

// readChains gives the digests of the table's chains, as far as they are those of
// want. A rule cannot be changed, only replaced: one with our mark is ours as it
// was written. A chain with another hook or policy than wanted makes the whole
// table another one.
func (r *Reconciler) readChains(want *program) (map[string]string, error) {
	all, err := r.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, err
	}
	hooks, out := map[string]*nftables.Chain{}, map[string]string{}
	for _, c := range all {
		if c.Table.Name == felix.TableName {
			hooks[c.Name], out[c.Name] = c, ""
		}
	}
	for _, c := range want.chains {
		h, there := hooks[c.Name]
		switch {
		case !there:
			continue
		case !sameHook(h, c.Chain):
			return nil, nil
		}
		rules, err := r.conn.GetRules(want.table, c.Chain)
		if err != nil && !absent(err) {
			return nil, err
		}
		if sameRules(rules, c.rules) {
			out[c.Name] = c.digest
		}
	}
	return out, nil
}

func sameRules(have, want []*nftables.Rule) bool {
	return slices.EqualFunc(have, want, func(a, b *nftables.Rule) bool {
		return bytes.Equal(userdata.Get(a.UserData, typeMark), userdata.Get(b.UserData, typeMark))
	})
}

func sameHook(a, b *nftables.Chain) bool {
	return a.Type == b.Type && equalPointers(a.Hooknum, b.Hooknum) && equalPointers(a.Priority, b.Priority) &&
		equalPointers(a.Policy, b.Policy)
}

func equalPointers[T comparable](a, b *T) bool {
	return a == b || a != nil && b != nil && *a == *b
}

// sameElements compares a fixed set. The kernel lists a closing element more
// than was written, so none of those that are not wanted counts.
func sameElements(have, want map[string]nftables.SetElement) bool {
	d := compare(have, want)
	for _, e := range d.Remove {
		if !e.Value.IntervalEnd {
			return false
		}
	}
	return len(d.Add) == 0
}
