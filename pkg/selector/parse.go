package selector

import (
	"fmt"
	"slices"
	"strings"
)

// maxDepth bounds nested parentheses, so that no text can exhaust the stack.
const maxDepth = 200

// maxLabel is the longest label name Calico accepts, in bytes.
const maxLabel = 512

// SyntaxError says where and why a selector does not parse.
type SyntaxError struct {
	Text   string // the whole selector
	Offset int    // byte offset of the trouble
	Reason string // what was expected or found
}

// Error gives one line with the selector, the place and the reason.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("selector %q: at offset %d: %s", e.Text, e.Offset, e.Reason)
}

// Parse reads a selector. Every error is a *SyntaxError.
func Parse(text string) (s *Selector, err error) {
	p := &parser{text: text}
	p.space()
	if p.done() {
		return &Selector{}, nil
	}
	root, err := p.or(0)
	if err != nil {
		return nil, err
	}
	if !p.done() {
		return nil, p.fail("expected &&, || or the end")
	}
	return &Selector{root: root}, nil
}

// parser walks the text once, left to right. Every method leaves pos after the
// white space that follows what it read.
type parser struct {
	text string
	pos  int
}

func (p *parser) done() bool   { return p.pos >= len(p.text) }
func (p *parser) rest() string { return p.text[p.pos:] }

func (p *parser) space() {
	for !p.done() && (p.text[p.pos] == ' ' || p.text[p.pos] == '\t') {
		p.pos++
	}
}

func (p *parser) fail(format string, args ...any) error {
	return &SyntaxError{Text: p.text, Offset: p.pos, Reason: fmt.Sprintf(format, args...)}
}

// take consumes token and the space after it, if it comes next.
func (p *parser) take(token string) bool {
	if !strings.HasPrefix(p.rest(), token) {
		return false
	}
	p.pos += len(token)
	p.space()
	return true
}

// or reads operands joined by ||, the operator that binds least.
func (p *parser) or(depth int) (node, error) { return p.list("||", depth, p.and) }

// and reads operands joined by &&.
func (p *parser) and(depth int) (node, error) { return p.list("&&", depth, p.operand) }

func (p *parser) list(op string, depth int, operand func(int) (node, error)) (node, error) {
	first, err := operand(depth)
	if err != nil {
		return nil, err
	}
	of := []node{first}
	for p.take(op) {
		next, err := operand(depth)
		if err != nil {
			return nil, err
		}
		of = append(of, next)
	}
	if len(of) == 1 {
		return first, nil
	}
	return listNode{op: op, of: of}, nil
}

// operand reads one possibly negated term. Pairs of "!" cancel out.
func (p *parser) operand(depth int) (node, error) {
	negated := false
	for !p.done() && p.text[p.pos] == '!' && !strings.HasPrefix(p.rest(), "!=") {
		p.take("!")
		negated = !negated
	}
	n, err := p.term(depth)
	if err != nil {
		return nil, err
	}
	if negated {
		return notNode{of: n}, nil
	}
	return n, nil
}

func (p *parser) term(depth int) (node, error) {
	switch {
	case p.done():
		return nil, p.fail("expected an expression, found the end")
	case p.text[p.pos] == '(':
		return p.parentheses(depth)
	case strings.HasPrefix(p.rest(), "global("):
		return nil, p.fail("global() selects no labels and has no meaning here; use all()")
	case p.take("all("):
		return allNode{}, p.expect(")", "after all(")
	case p.take("has("):
		label, err := p.label()
		if err != nil {
			return nil, err
		}
		return hasNode{label: label}, p.expect(")", "after has("+label)
	}
	return p.comparison()
}

func (p *parser) expect(token, where string) error {
	if !p.take(token) {
		return p.fail("expected %s %s", token, where)
	}
	return nil
}

func (p *parser) parentheses(depth int) (node, error) {
	if depth >= maxDepth {
		return nil, p.fail("more than %d nested parentheses", maxDepth)
	}
	p.take("(")
	n, err := p.or(depth + 1)
	if err != nil {
		return nil, err
	}
	return n, p.expect(")", "to close the parenthesis")
}

func (p *parser) label() (string, error) {
	end := p.pos
	for end < len(p.text) && labelByte(p.text[end]) {
		end++
	}
	if end == p.pos {
		return "", p.fail("expected a label name")
	}
	if end-p.pos > maxLabel {
		return "", p.fail("label name longer than %d bytes", maxLabel)
	}
	label := p.text[p.pos:end]
	p.pos = end
	p.space()
	return label, nil
}

func labelByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}

// comparison reads "label operator value".
func (p *parser) comparison() (node, error) {
	label, err := p.label()
	if err != nil {
		return nil, err
	}
	for _, op := range []string{"==", "!=", "contains"} {
		if p.take(op) {
			return p.compare(label, op)
		}
	}
	for _, op := range [][2]string{{"starts", "with"}, {"ends", "with"}} {
		if p.take(op[0]) {
			if err := p.expect(op[1], "after "+op[0]); err != nil {
				return nil, err
			}
			return p.compare(label, op[0]+" "+op[1])
		}
	}
	not := p.take("not")
	if p.take("in") {
		return p.set(label, not)
	}
	return nil, p.fail("expected ==, !=, in, not in, contains, starts with or ends with after label %s", label)
}

func (p *parser) compare(label, op string) (node, error) {
	value, err := p.quoted()
	if err != nil {
		return nil, err
	}
	return compareNode{label: label, op: op, value: value}, nil
}

func (p *parser) quoted() (string, error) {
	if p.done() || p.text[p.pos] != '\'' && p.text[p.pos] != '"' {
		return "", p.fail("expected a string in quotes")
	}
	value, _, closed := strings.Cut(p.text[p.pos+1:], p.text[p.pos:p.pos+1])
	if !closed {
		return "", p.fail("string without closing quote")
	}
	p.pos += len(value) + 2
	p.space()
	return value, nil
}

// set reads {'a', 'b'}. Calico allows an empty set and a comma at the end.
func (p *parser) set(label string, not bool) (node, error) {
	if err := p.expect("{", "before the values of a set"); err != nil {
		return nil, err
	}
	var values []string
	for !p.take("}") {
		value, err := p.quoted()
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if p.take(",") {
			continue
		}
		if err := p.expect("}", "after the values of a set"); err != nil {
			return nil, err
		}
		break
	}
	slices.Sort(values)
	return setNode{label: label, not: not, values: slices.Compact(values)}, nil
}
