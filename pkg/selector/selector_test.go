package selector

import (
	"errors"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

var _ model.Selector = (*Selector)(nil)

func TestMatches(t *testing.T) {
	labels := map[string]string{"rack": "a", "name": "web-1", "empty": "", "k8s.io/role": "x", "in": "y", "not": "z", "all": "q"}
	tests := []struct {
		text string
		want bool
	}{
		{"", true},
		{"  \t ", true},
		{"all()", true},
		{"all( )", true},
		{"!all()", false},
		{"!!all()", true},
		{"! ! !all()", false},
		{"has(rack)", true},
		{"has( rack )", true},
		{"has(empty)", true},
		{"has(gone)", false},
		{"!has(gone)", true},
		{"rack == 'a'", true},
		{`rack=="a"`, true},
		{"rack == 'b'", false},
		{"gone == ''", false},
		{"empty == ''", true},
		{"rack != 'a'", false},
		{"rack!='b'", true},
		{"gone != 'a'", true},
		{"rack in {'a', 'b'}", true},
		{"rack in {'b','a',}", true},
		{"rack in {}", false},
		{"rack not in {}", true},
		{"rack in{'c'}", false},
		{"gone in {''}", false},
		{"rack not in {'a'}", false},
		{"rack  not \t in {'c'}", true},
		{"gone not in {'a'}", true},
		{"name contains 'eb'", true},
		{"name contains 'x'", false},
		{"gone contains ''", false},
		{"name starts with 'web'", true},
		{"name starts with 'eb'", false},
		{"name ends with '-1'", true},
		{"name ends  with '-2'", false},
		{"k8s.io/role == 'x'", true},
		{"in == 'y' && not == 'z' && all == 'q'", true},
		{"in in {'y'} && not not in {'y'}", true},
		{"rack == 'b' || has(name) && rack == 'a'", true},
		{"(rack == 'b' || has(name)) && rack == 'c'", false},
		{"!(rack == 'a' && has(gone))", true},
		{"!rack == 'a'", false},
		{"rack == 'a'&&has(name)||has(gone)", true},
	}
	for _, tt := range tests {
		s, err := Parse(tt.text)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.text, err)
			continue
		}
		if got := s.Matches(labels); got != tt.want {
			t.Errorf("%q matches: got %v, want %v", tt.text, got, tt.want)
		}
		again, err := Parse(s.String())
		if err != nil || again.String() != s.String() || again.Matches(labels) != tt.want {
			t.Errorf("%q printed as %q does not come back: %v, %v", tt.text, s, again, err)
		}
	}
}

func TestString(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "all()",
		"a=='b'":                      `a == "b"`,
		`a != 'say "x"'`:              `a != 'say "x"'`,
		"!has(a)&&b in {'z','a','z'}": `(!has(a) && b in {"a", "z"})`,
		"a||b=='1'||c not in {'x'}":   "",
		"(a == '1' || b == '2') && c contains 'x'": `((a == "1" || b == "2") && c contains "x")`,
		"c not in {'x'}": `c not in {"x"}`,
	} {
		s, err := Parse(text)
		if want == "" {
			if err == nil {
				t.Errorf("Parse(%q) succeeded", text)
			}
			continue
		}
		if err != nil || s.String() != want {
			t.Errorf("Parse(%q) prints %q, %v; want %q", text, s, err, want)
		}
	}
}

func TestParseErrors(t *testing.T) {
	tests := []struct {
		text   string
		offset int
		reason string
	}{
		{"rack", 4, "expected ==, !=, in, not in"},
		{"rack = 'a'", 5, "expected =="},
		{"rack == a", 8, "string in quotes"},
		{"rack == 'a", 8, "closing quote"},
		{"rack starts 'a'", 12, "expected with"},
		{"rack not 'a'", 9, "after label rack"},
		{"rack in 'a'", 8, "expected {"},
		{"rack in {'a' 'b'}", 13, "expected }"},
		{"rack in {'a'", 12, "expected }"},
		{"rack in {a}", 9, "string in quotes"},
		{"has(", 4, "label name"},
		{"has(a", 5, "expected )"},
		{"all(x)", 4, "expected )"},
		{"(has(a)", 7, "close the parenthesis"},
		{"has(a))", 6, "or the end"},
		{"has(a) &&", 9, "found the end"},
		{"has(a) & has(b)", 7, "or the end"},
		{"&& has(a)", 0, "label name"},
		{"!", 1, "found the end"},
		{"!= 'a'", 0, "label name"},
		{"global()", 0, "use all()"},
		{"ünder == 'a'", 0, "label name"},
		{strings.Repeat("a", 513) + " == 'x'", 0, "longer than 512"},
		{strings.Repeat("(", 300), 200, "nested"},
		{"has(a) && global()", 10, "use all()"},
	}
	for _, tt := range tests {
		_, err := Parse(tt.text)
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("Parse(%q): got %v, want a SyntaxError", tt.text, err)
			continue
		}
		if syntax.Offset != tt.offset || !strings.Contains(err.Error(), tt.reason) {
			t.Errorf("Parse(%q): got %v, want offset %d and %q", tt.text, err, tt.offset, tt.reason)
		}
	}
}

func TestZeroSelectsEverything(t *testing.T) {
	var none *Selector
	for _, s := range []*Selector{none, {}, All()} {
		if !s.Matches(nil) || s.String() != "all()" {
			t.Errorf("%#v: matches %v, prints %q", s, s.Matches(nil), s)
		}
	}
}

// FuzzParse checks that no text panics, that what parses prints to a text which
// parses to the same, and that negation negates.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "all()", "has(a)", "a == 'b' && c != \"d\"", "a in {'x','y'} || !(b not in {})",
		"a contains 'x'", "a starts with 'x'", "a ends with 'x'", "((((a=='1'))))", "!!has(a)",
	} {
		f.Add(seed, "a", "x")
	}
	f.Fuzz(func(t *testing.T, text, key, value string) {
		s, err := Parse(text)
		if err != nil {
			var syntax *SyntaxError
			if !errors.As(err, &syntax) || syntax.Offset < 0 || syntax.Offset > len(text) {
				t.Fatalf("Parse(%q): bad error %#v", text, err)
			}
			return
		}
		labels := map[string]string{key: value}
		again, err := Parse(s.String())
		if err != nil {
			// Printing adds parentheses; only the depth limit may object.
			if strings.Contains(err.Error(), "nested") {
				return
			}
			t.Fatalf("%q prints as %q, which does not parse: %v", text, s, err)
		}
		if again.String() != s.String() || again.Matches(labels) != s.Matches(labels) {
			t.Fatalf("%q prints as %q, which is another selector: %q", text, s, again)
		}
		negated, err := Parse("!(" + s.String() + ")")
		if err == nil && negated.Matches(labels) == s.Matches(labels) {
			t.Fatalf("!(%s) matches as %s does", s, s)
		}
	})
}
