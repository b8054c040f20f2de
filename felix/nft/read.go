package nft

import (
	"bytes"
	"errors"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
)

// unknown is the digest of a table that is there and is not what its own digest
// says, or has none.
const unknown = "?"

// read returns the digest and the live elements of the table: "" when there is
// none, unknown when its chains, rules and fixed sets are not those of want.
func (r *Reconciler) read(want *program) (string, map[string]map[string]nftables.SetElement, error) {
	if _, err := r.conn.ListTableOfFamily(felix.TableName, nftables.TableFamilyINet); err != nil {
		if absent(err) {
			return "", nil, nil
		}
		return "", nil, err
	}
	same, err := r.sameChains(want)
	if err != nil {
		return "", nil, err
	}
	if !same {
		return unknown, nil, nil
	}
	live := map[string]map[string]nftables.SetElement{}
	for _, s := range want.sets {
		elements, err := r.conn.GetSetElements(s.Set)
		if absent(err) {
			return unknown, nil, nil
		}
		if err != nil {
			return "", nil, err
		}
		have := index(elements)
		if s.live {
			live[s.Name] = have
		} else if !sameElements(have, index(s.elements)) {
			return unknown, nil, nil
		}
	}
	return want.digest, live, nil
}

func absent(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOENT) }

// sameChains reports whether the table has the chains of want and no others,
// each with its hook, its policy and its rules. A rule cannot be changed, only
// replaced: one with our mark is ours as it was written.
func (r *Reconciler) sameChains(want *program) (bool, error) {
	all, err := r.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, err
	}
	have := map[string]*nftables.Chain{}
	for _, c := range all {
		if c.Table.Name == felix.TableName {
			have[c.Name] = c
		}
	}
	if len(have) != len(want.chains) {
		return false, nil
	}
	for _, c := range want.chains {
		if h := have[c.Name]; h == nil || !sameHook(h, c.Chain) {
			return false, nil
		}
		rules, err := r.conn.GetRules(want.table, c.Chain)
		if err != nil && !absent(err) {
			return false, err
		}
		if len(rules) != len(c.rules) {
			return false, nil
		}
		for i, rule := range rules {
			if !bytes.Equal(userdata.Get(rule.UserData, typeMark), userdata.Get(c.rules[i].UserData, typeMark)) {
				return false, nil
			}
		}
	}
	return true, nil
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
