// Package jsonscan is as much of JSON as the CNI plugin needs: the members of one
// object, of which those that are strings are decoded, and a string to write.
//
// It is here because of what it does not link: encoding/json brings reflect and
// fmt into a program that is started for every pod, and setting those up takes
// longer than all the plugin has to do. It is tested against encoding/json.
//
// Kernel and wire footprint: none.
package jsonscan

import (
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Value is what a member of an object has.
type Value struct {
	Text   []byte // the decoded string, or the JSON of anything else
	String bool
}

// deepest is how many arrays and objects may be inside each other in a member.
const deepest = 100

// Object reads a JSON object (RFC 8259) and calls visit for each member, in
// order; of members with the same name the last one counts. What visit is given
// is part of text where it can be.
func Object(text []byte, visit func(name []byte, v Value)) error {
	r := reader{text: text}
	r.space()
	if !r.take('{') {
		return r.wrong("an object")
	}
	for more := !r.empty('}'); more; {
		name, err := r.name()
		if err != nil {
			return err
		}
		v, err := r.value()
		if err != nil {
			return err
		}
		visit(name, v)
		if more, err = r.more('}'); err != nil {
			return err
		}
	}
	if r.space(); r.at < len(r.text) {
		return r.wrong("the end")
	}
	return nil
}

type reader struct {
	text []byte
	at   int // bytes
}

func (r *reader) wrong(want string) error {
	if r.at >= len(r.text) {
		return errors.New("JSON ends where " + want + " should be")
	}
	c, _ := utf8.DecodeRune(r.text[r.at:])
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

// empty takes end, right behind what opened.
func (r *reader) empty(end byte) bool {
	r.space()
	return r.take(end)
}

// more takes what is behind an item of a list: end, or a comma.
func (r *reader) more(end byte) (bool, error) {
	switch r.space(); {
	case r.take(end):
		return false, nil
	case r.take(','):
		return true, nil
	}
	return false, r.wrong("a comma or " + strconv.QuoteRune(rune(end)))
}

// name reads the name of a member, and its colon.
func (r *reader) name() ([]byte, error) {
	r.space()
	name, err := r.str()
	if err != nil {
		return nil, err
	}
	if r.space(); !r.take(':') {
		return nil, r.wrong("a colon")
	}
	return name, nil
}

func (r *reader) value() (Value, error) {
	r.space()
	if r.peek() == '"' {
		text, err := r.str()
		return Value{text, true}, err
	}
	from := r.at
	err := r.pass(deepest)
	return Value{Text: r.text[from:r.at]}, err
}

// pass goes behind a value, in which as many arrays and objects may be inside
// each other as deep says.
func (r *reader) pass(deep int) error {
	var end byte
	switch r.space(); {
	case r.take('{'):
		end = '}'
	case r.take('['):
		end = ']'
	case r.peek() == '"':
		_, err := r.str()
		return err
	default:
		return r.plain()
	}
	if deep == 0 {
		return errors.New("JSON has too many levels")
	}
	for more := !r.empty(end); more; {
		if end == '}' {
			if _, err := r.name(); err != nil {
				return err
			}
		}
		err := r.pass(deep - 1)
		if err != nil {
			return err
		}
		if more, err = r.more(end); err != nil {
			return err
		}
	}
	return nil
}

// plain reads a word or a number.
func (r *reader) plain() error {
	for _, word := range [...]string{"true", "false", "null"} {
		if rest := r.text[r.at:]; len(rest) >= len(word) && string(rest[:len(word)]) == word {
			r.at += len(word)
			return nil
		}
	}
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
func (r *reader) str() ([]byte, error) {
	if !r.take('"') {
		return nil, r.wrong("a string")
	}
	var out []byte
	for from := r.at; ; {
		switch c := r.peek(); {
		case r.at >= len(r.text) || c < ' ':
			return nil, r.wrong("the end of a string")
		case c == '"':
			text := r.text[from:r.at]
			if r.at++; out != nil {
				text = append(out, text...)
			}
			if !utf8.Valid(text) {
				text = []byte(string([]rune(string(text)))) // U+FFFD for every byte that is none
			}
			return text, nil
		case c == '\\':
			out = append(out, r.text[from:r.at]...)
			r.at++
			c, err := r.escape()
			if err != nil {
				return nil, err
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
	for i := range names {
		if r.take(names[i]) {
			return rune(meanings[i]), nil
		}
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
	n, err := strconv.ParseUint(string(r.text[at+1:at+5]), 16, 32)
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
