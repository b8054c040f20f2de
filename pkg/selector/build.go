package selector

import (
	"slices"
	"strings"
)

// Has selects what has the label, with any value.
func Has(label string) *Selector { return &Selector{root: hasNode{label: label}} }

// Equal selects what has the label with that value.
func Equal(label, value string) *Selector {
	return &Selector{root: compareNode{label: label, op: "==", value: value}}
}

// In selects what has the label with one of the values.
func In(label string, values ...string) *Selector {
	values = slices.Clone(values)
	slices.Sort(values)
	return &Selector{root: setNode{label: label, values: slices.Compact(values)}}
}

// NotIn selects what In does not: also what has no such label.
func NotIn(label string, values ...string) *Selector {
	n := In(label, values...).root.(setNode)
	n.not = true
	return &Selector{root: n}
}

// Not selects what s does not.
func Not(s *Selector) *Selector {
	if s == nil || s.root == nil {
		return &Selector{root: notNode{of: allNode{}}}
	}
	if n, ok := s.root.(notNode); ok {
		return &Selector{root: n.of}
	}
	return &Selector{root: notNode{of: s.root}}
}

// And selects what all of them do; without any, everything.
func And(of ...*Selector) *Selector {
	var nodes []node
	for _, s := range of {
		if s == nil || s.root == nil || s.root == (node)(allNode{}) {
			continue
		}
		if l, ok := s.root.(listNode); ok && l.op == "&&" {
			nodes = append(nodes, l.of...)
			continue
		}
		nodes = append(nodes, s.root)
	}
	switch len(nodes) {
	case 0:
		return All()
	case 1:
		return &Selector{root: nodes[0]}
	}
	return &Selector{root: listNode{op: "&&", of: nodes}}
}

// Within gives s as it is asked of what inherits labels under a prefix: each label
// name in s gets the prefix, and all() becomes the selector all, because not
// everything inherits.
func (s *Selector) Within(prefix string, all *Selector) *Selector {
	if s == nil || s.root == nil {
		return all
	}
	return &Selector{root: within(s.root, prefix, all.root)}
}

func within(n node, prefix string, all node) node {
	switch n := n.(type) {
	case allNode:
		if all != nil {
			return all
		}
	case hasNode:
		return hasNode{label: prefix + n.label}
	case compareNode:
		n.label = prefix + n.label
		return n
	case setNode:
		n.label = prefix + n.label
		return n
	case notNode:
		return notNode{of: within(n.of, prefix, all)}
	case listNode:
		of := make([]node, len(n.of))
		for i, x := range n.of {
			of[i] = within(x, prefix, all)
		}
		return listNode{op: n.op, of: of}
	}
	return n
}

// IsGlobal reports whether text is global(), with which a policy's
// namespaceSelector selects what has no namespace. It stands alone: Parse
// refuses it, as it refuses it in every other place.
func IsGlobal(text string) bool {
	return strings.Join(strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\t' }), "") == "global()"
}
