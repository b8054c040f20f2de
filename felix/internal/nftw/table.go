package nftw

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/pkg/model"
)

// Table is what an nftables table of the family inet is to be. What two of them share
// is not compared.
type Table struct {
	*nftables.Table
	Sets       model.Sorted[*Set]
	Chains     model.Sorted[*Chain]
	generation *Chain
	// Renew, if not nil, is asked before a change of the table is written, and gives the table that is
	// to be written instead, nil for none: one with the number of the change, say. Where it gives one, and ranges
	// change, it is asked once more when they are in the kernel.
	Renew func(Change) (*Table, error)
}

// Change is what of the kernel's table is going to be another, by name. What is new, or goes as a whole, is
// not in it.
type Change struct {
	Whole      bool     // all of it
	Rewritten  []string // chains that get other rules
	Less, More []string // sets and maps that lose elements, and those that get some
}

// Set is a set or a map with its elements.
type Set struct {
	*nftables.Set
	Elements Elements
}

// Elements are what is in a set.
type Elements interface {
	// All gives them as they are written. Those of an interval set are sorted: a beginning,
	// then its end if it has one.
	All() []nftables.SetElement
	// Since gives what to remove from those of before, and what to add. known is false if
	// these are of another kind: both have to be compared one by one.
	Since(before Elements) (remove, add []nftables.SetElement, known bool)
}

// list is Elements that know of no others.
type list []nftables.SetElement

func (l list) All() []nftables.SetElement { return l }

func (list) Since(Elements) (remove, add []nftables.SetElement, known bool) { return nil, nil, false }

// Compare orders by name.
func (s *Set) Compare(o *Set) int { return strings.Compare(s.Name, o.Name) }

// Chain is a chain with its rules.
type Chain struct {
	*nftables.Chain
	Rules  []*nftables.Rule
	digest string // of the rules
}

// Compare orders by name.
func (c *Chain) Compare(o *Chain) int { return strings.Compare(c.Name, o.Name) }

// NewTable makes an empty table.
func NewTable(name string) *Table {
	return &Table{Table: &nftables.Table{Family: nftables.TableFamilyINet, Name: name}}
}

// chainGeneration names the chain whose one rule says what kinds of sets there are.
const chainGeneration = "generation"

// Finish ends the making of a table: no chain is added after it. Where generation
// differs from that of the kernel's table, the table is written anew as a whole: for
// a set cannot be changed, only made anew with all that refers to it.
func (t *Table) Finish(generation string) error {
	g := t.Chain(chainGeneration, nil)
	g.Rules = append(g.Rules, &nftables.Rule{
		Exprs:    []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}},
		UserData: userdata.AppendString(nil, userdata.TypeComment, generation),
	})
	t.generation = g
	return t.Sign()
}

// Sign marks the rules of chains that are not signed yet: see Chain.Sign.
func (t *Table) Sign() error {
	for c := range t.Chains.All() {
		if c.digest != "" {
			continue
		}
		if err := c.Sign(); err != nil {
			return fmt.Errorf("chain %s: %w", c.Name, err)
		}
	}
	return nil
}

// Schema is a digest of what kinds of sets there are, without their elements.
func (t *Table) Schema() string {
	sum := sha256.New()
	for s := range t.Sets.All() {
		fmt.Fprintf(sum, "%q %s %s %t %t %t\n", s.Name, s.KeyType.Name, s.DataType.Name, s.IsMap, s.Interval, s.Concatenation)
	}
	return hex.EncodeToString(sum.Sum(nil)[:8])
}

// typeMark is the kind of user data that a rule's mark is. nft knows comments
// (0) and leaves what it does not know alone.
const typeMark userdata.Type = 0x6d

// Sign marks each rule with the digest of its chain and its place, so that one
// that somebody else wrote in its stead is seen, and one that another version of
// ours wrote otherwise. The digest is over what is written.
func (c *Chain) Sign() error {
	sum := sha256.New()
	for _, rule := range c.Rules {
		for _, e := range rule.Exprs {
			b, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
			if err != nil {
				return err
			}
			fmt.Fprintf(sum, "%d %s", len(b), b)
		}
		fmt.Fprintf(sum, "rule %d %s", len(rule.UserData), rule.UserData)
	}
	c.digest = hex.EncodeToString(sum.Sum(nil)[:8])
	for i, rule := range c.Rules {
		rule.UserData = userdata.Append(rule.UserData, typeMark, []byte(c.digest+" "+strconv.Itoa(i)))
	}
	return nil
}

// Digest is that of the rules, as they were signed last.
func (c *Chain) Digest() string { return c.digest }

// Chain adds a chain; base, as Base makes it, gives it a hook.
func (t *Table) Chain(name string, base *nftables.Chain) *Chain {
	c := &Chain{Chain: &nftables.Chain{Name: name, Table: t.Table}}
	if base != nil {
		c.Type, c.Hooknum, c.Priority, c.Policy = base.Type, base.Hooknum, base.Priority, base.Policy
	}
	t.Chains = t.Chains.With([]*Chain{c}, nil)
	return c
}

// Base is the hook of a base chain, with the policy accept.
func Base(kind nftables.ChainType, hook *nftables.ChainHook, priority int32) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{Type: kind, Hooknum: hook, Priority: nftables.ChainPriorityRef(nftables.ChainPriority(priority)), Policy: &accept}
}

// Add adds a rule made of words.
func (c *Chain) Add(words ...[]expr.Any) { c.AddCommented("", words...) }

// AddCommented adds a rule with a comment, which is cut after 127 bytes.
func (c *Chain) AddCommented(comment string, words ...[]expr.Any) {
	rule := &nftables.Rule{Exprs: slices.Concat(words...)}
	if comment != "" {
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, comment[:min(len(comment), 127)])
	}
	c.Rules = append(c.Rules, rule)
}

// Set adds a set.
func (t *Table) Set(name string, key nftables.SetDatatype, interval bool, elements []nftables.SetElement) *Set {
	s := t.NewSet(name, key, interval, list(elements))
	t.Sets = t.Sets.With([]*Set{s}, nil)
	return s
}

// NewSet makes a set of the table without adding it.
func (t *Table) NewSet(name string, key nftables.SetDatatype, interval bool, elements Elements) *Set {
	var order binaryutil.ByteOrder // for nft, which lists names backwards without
	if key.Name == nftables.TypeIFName.Name {
		order = binaryutil.NativeEndian
	}
	return &Set{
		Set: &nftables.Set{
			Table: t.Table, Name: name, KeyType: key, KeyByteOrder: order, Interval: interval,
			Concatenation: strings.Contains(key.Name, "."),
		},
		Elements: elements,
	}
}

// Map adds a map.
func (t *Table) Map(name string, key, data nftables.SetDatatype, elements []nftables.SetElement) {
	s := t.Set(name, key, false, elements)
	s.DataType, s.IsMap = data, true
}

// Ranges gives the half-open intervals of sorted, disjoint prefixes.
func Ranges(in []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, p := range in {
		out = append(out, Interval(p.Masked().Addr(), Last(p))...)
	}
	return out
}

// Interval gives the half-open interval from one address to another, both included.
func Interval(first, last netip.Addr) []nftables.SetElement {
	out := []nftables.SetElement{{Key: first.AsSlice()}}
	if next := last.Next(); next.IsValid() {
		out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
	}
	return out
}

// Last is the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// InterfaceName is a name as the kernel compares it.
func InterfaceName(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
