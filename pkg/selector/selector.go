package selector

import (
	"iter"
	"slices"
	"strings"
)

// Selector is a parsed selector. The zero value selects everything. It is
// immutable and safe for concurrent use.
type Selector struct{ root node }

// All selects everything.
func All() *Selector { return &Selector{} }

// Matches reports whether labels satisfy the selector. A nil map is a set
// without labels.
func (s *Selector) Matches(labels map[string]string) bool {
	return s == nil || s.root == nil || s.root.matches(labels)
}

// Requires gives the value that everything the selector selects has for a label,
// as far as that can be seen from its form: ok is false if it asks for no one value.
func (s *Selector) Requires(label string) (value string, ok bool) {
	for l, v := range s.Required() {
		if l == label {
			return v, true
		}
	}
	return "", false
}

// Required gives the labels, with their values, that everything the selector selects
// has, as far as that can be seen from its form.
func (s *Selector) Required() iter.Seq2[string, string] {
	return func(yield func(label, value string) bool) {
		if s == nil {
			return
		}
		nodes := []node{s.root}
		if l, and := s.root.(listNode); and && l.op == "&&" {
			nodes = l.of
		}
		for _, n := range nodes {
			if c, is := n.(compareNode); is && c.op == "==" && !yield(c.label, c.value) {
				return
			}
		}
	}
}

// String gives the selector in one spelling: parsing it again gives an equal
// selector, and equal selectors have equal texts.
func (s *Selector) String() string {
	if s == nil || s.root == nil {
		return "all()"
	}
	var b strings.Builder
	s.root.print(&b)
	return b.String()
}

// node is one expression of the syntax tree.
type node interface {
	matches(labels map[string]string) bool
	print(b *strings.Builder)
}

type allNode struct{}

func (allNode) matches(map[string]string) bool { return true }
func (allNode) print(b *strings.Builder)       { b.WriteString("all()") }

type hasNode struct{ label string }

func (n hasNode) matches(labels map[string]string) bool {
	_, ok := labels[n.label]
	return ok
}

func (n hasNode) print(b *strings.Builder) {
	b.WriteString("has(" + n.label + ")")
}

// compareNode holds the operators that take one string.
type compareNode struct{ label, op, value string }

func (n compareNode) matches(labels map[string]string) bool {
	have, ok := labels[n.label]
	switch n.op {
	case "==":
		return ok && have == n.value
	case "!=":
		return !ok || have != n.value
	case "contains":
		return ok && strings.Contains(have, n.value)
	case "starts with":
		return ok && strings.HasPrefix(have, n.value)
	default: // "ends with"
		return ok && strings.HasSuffix(have, n.value)
	}
}

func (n compareNode) print(b *strings.Builder) {
	b.WriteString(n.label + " " + n.op + " " + quote(n.value))
}

// setNode is "in" and "not in". Values are sorted and unique.
type setNode struct {
	label  string
	not    bool
	values []string
}

func (n setNode) matches(labels map[string]string) bool {
	have, ok := labels[n.label]
	_, in := slices.BinarySearch(n.values, have)
	return (ok && in) != n.not
}

func (n setNode) print(b *strings.Builder) {
	b.WriteString(n.label)
	if n.not {
		b.WriteString(" not")
	}
	b.WriteString(" in {")
	for i, v := range n.values {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(quote(v))
	}
	b.WriteByte('}')
}

type notNode struct{ of node }

func (n notNode) matches(labels map[string]string) bool { return !n.of.matches(labels) }

func (n notNode) print(b *strings.Builder) {
	b.WriteByte('!')
	n.of.print(b)
}

// listNode is "&&" or "||" over two or more operands.
type listNode struct {
	op string
	of []node
}

func (n listNode) matches(labels map[string]string) bool {
	or := n.op == "||"
	for _, x := range n.of {
		if x.matches(labels) == or {
			return or
		}
	}
	return !or
}

func (n listNode) print(b *strings.Builder) {
	b.WriteByte('(')
	for i, x := range n.of {
		if i > 0 {
			b.WriteString(" " + n.op + " ")
		}
		x.print(b)
	}
	b.WriteByte(')')
}

// quote picks the quotes that the value does not contain; no value can hold
// both kinds, since the language has no escapes.
func quote(s string) string {
	if strings.ContainsRune(s, '"') {
		return "'" + s + "'"
	}
	return `"` + s + `"`
}
