// Package flat is as much of JSON as the CNI plugin needs: the members of one
// object, of which those that are strings are decoded, and a string to write.
//
// It is here because of what it does not link: encoding/json brings reflect and
// fmt into a program that is started for every pod, and setting those up takes
// longer than all the plugin has to do. It is tested against encoding/json.
//
// Kernel and wire footprint: none.
package flat

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Value is what a member of an object has.
type Value struct {
	Text   string // the decoded string, or the JSON of anything else
	String bool
}

// deepest is how many arrays and objects may be inside each other.
const deepest = 100

// Object reads a JSON object (RFC 8259). Of members with the same name the last
// one counts.
func Object(text []byte) (map[string]Value, error) {
	r := reader{text: string(text)}
	r.space()
	if !r.take('{') {
		return nil, r.wrong("an object")
	}
	out := map[string]Value{}
	err := r.members(deepest, func(name string, v Value) { out[name] = v })
	if err == nil {
		if r.space(); r.at < len(r.text) {
			err = r.wrong("the end")
		}
	}
	return out, err
}

type reader struct {
	text string
	at   int // bytes
}

func (r *reader) wrong(want string) error {
	if r.at >= len(r.text) {
		return errors.New("JSON ends where " + want + " should be")
	}
	c, _ := utf8.DecodeRuneInString(r.text[r.at:])
	return errors.New("JSON has " + strconv.QuoteRune(c) + " at byte " + strconv.Itoa(r.at) + " where " + want + " should be")
}

func (r *reader) peek() byte {
	if r.at < len(r.text) {
		return r.text[r.at]
	}
	return 0
}

func (r *reader) take(c byte) bool {
	if r.peek() != c || r.at >= len(r.text) {
		return false
	}
	r.at++
	return true
}

func (r *reader) space() {
	for c := r.peek(); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = r.peek() {
		r.at++
	}
}

// members reads an object from behind its brace.
func (r *reader) members(deep int, visit func(string, Value)) error {
	return r.list('}', func() error {
		name, err := r.str()
		if err != nil {
			return err
		}
		if r.space(); !r.take(':') {
			return r.wrong("a colon")
		}
		v, err := r.value(deep)
		visit(name, v)
		return err
	})
}

// list reads what commas separate, up to end.
func (r *reader) list(end byte, one func() error) error {
	if r.space(); r.take(end) {
		return nil
	}
	for {
		r.space()
		if err := one(); err != nil {
			return err
		}
		switch r.space(); {
		case r.take(end):
			return nil
		case !r.take(','):
			return r.wrong("a comma or " + strconv.QuoteRune(rune(end)))
		}
	}
}

func (r *reader) value(deep int) (Value, error) {
	r.space()
	if r.peek() == '"' {
		text, err := r.str()
		return Value{text, true}, err
	}
	from := r.at
	err := r.other(deep - 1)
	return Value{Text: r.text[from:r.at]}, err
}

// other reads a value that is not a string.
func (r *reader) other(deep int) error {
	if deep < 0 {
		return errors.New("JSON has too many levels")
	}
	switch {
	case r.take('{'):
		return r.members(deep, func(string, Value) {})
	case r.take('['):
		return r.list(']', func() error {
			_, err := r.value(deep)
			return err
		})
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(r.text[r.at:], word) {
			r.at += len(word)
			return nil
		}
	}
	return r.number()
}

func (r *reader) number() error {
	r.take('-')
	if !r.take('0') && !r.digits() {
		return r.wrong("a value")
	}
	if r.take('.') && !r.digits() {
		return r.wrong("a digit")
	}
	if r.take('e') || r.take('E') {
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			return r.wrong("a digit")
		}
	}
	return nil
}

func (r *reader) digits() (any bool) {
	for c := r.peek(); '0' <= c && c <= '9'; c = r.peek() {
		r.at++
		any = true
	}
	return any
}

// str reads a string and decodes it.
func (r *reader) str() (string, error) {
	if !r.take('"') {
		return "", r.wrong("a string")
	}
	var out []byte
	for from := r.at; ; {
		switch c := r.peek(); {
		case r.at >= len(r.text) || c < ' ':
			return "", r.wrong("the end of a string")
		case c == '"':
			text := r.text[from:r.at]
			if r.at++; out != nil {
				text = string(append(out, text...))
			}
			if !utf8.ValidString(text) {
				text = string([]rune(text)) // U+FFFD for every byte that is none
			}
			return text, nil
		case c == '\\':
			out = append(out, r.text[from:r.at]...)
			r.at++
			c, err := r.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, c)
			from = r.at
		default:
			r.at++
		}
	}
}

// escape reads what follows a backslash.
func (r *reader) escape() (rune, error) {
	const names, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if i := strings.IndexByte(names, r.peek()); i >= 0 && r.at < len(r.text) {
		r.at++
		return rune(meanings[i]), nil
	}
	c, ok := r.unit(0)
	if !ok {
		return 0, r.wrong("an escape")
	}
	r.at += 5
	if utf16.IsSurrogate(c) && r.peek() == '\\' {
		if second, ok := r.unit(1); ok {
			if pair := utf16.DecodeRune(c, second); pair != utf8.RuneError {
				r.at += 6
				return pair, nil
			}
		}
	}
	return c, nil // half a pair is written as what stands for no character
}

// unit reads u and four hexadecimal digits, without moving on.
func (r *reader) unit(skip int) (rune, bool) {
	at := r.at + skip
	if at+5 > len(r.text) || r.text[at] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(r.text[at+1:at+5], 16, 32)
	return rune(n), err == nil
}

// AppendString appends s as JSON.
func AppendString(b []byte, s string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range s { // what is not UTF-8 comes as U+FFFD
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', byte(c))
		case c < ' ' || c == '\u2028' || c == '\u2029':
			b = append(b, '\\', 'u', digits[c>>12&15], digits[c>>8&15], digits[c>>4&15], digits[c&15])
		default:
			b = utf8.AppendRune(b, c)
		}
	}
	return append(b, '"')
}
