package selector

import "testing"

func TestBuild(t *testing.T) {
	parse := func(text string) *Selector {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		got  *Selector
		want string
	}{
		{And(), "all()"},
		{And(All(), parse("all()"), Has("a")), "has(a)"},
		{And(parse("a == 'x' && b == 'y'"), In("c", "2", "1", "2")), `(a == "x" && b == "y" && c in {"1", "2"})`},
		{And(parse("a == 'x' || b == 'y'"), Not(Has("c"))), `((a == "x" || b == "y") && !has(c))`},
		{Not(Not(Equal("a", "x"))), `a == "x"`},
		{Not(All()), "!all()"},
		{parse("").Within("pcns.", Has("n")), "has(n)"},
		{parse("!all()").Within("pcns.", Has("n")), "!has(n)"},
		{parse("all()").Within("pcns.", All()), "all()"},
		{
			parse("has(a) && (b != 'x' || c not in {'y'}) && !(d contains 'z' || all())").Within("pcns.", Has("n")),
			`(has(pcns.a) && (pcns.b != "x" || pcns.c not in {"y"}) && !(pcns.d contains "z" || has(n)))`,
		},
	} {
		if got := c.got.String(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
		if again := parse(c.got.String()).String(); again != c.want {
			t.Errorf("%s parses as %s", c.want, again)
		}
	}
}

func TestIsGlobal(t *testing.T) {
	for text, want := range map[string]bool{
		"global()": true, " global( ) ": true, "": false, "all()": false, "global() || has(a)": false, "!global()": false,
	} {
		if got := IsGlobal(text); got != want {
			t.Errorf("IsGlobal(%q) = %v", text, got)
		}
	}
}

func TestRequires(t *testing.T) {
	for text, want := range map[string]string{
		"n == 'x'": "x", "has(a) && n == 'x'": "x", "n == 'x' || has(a)": "", "!(n == 'x')": "", "n in {'x'}": "", "n != 'x'": "", "": "",
		"m == 'x' && (n == 'y')": "y",
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Requires("n"); got != want || ok != (want != "") {
			t.Errorf("%s: %q %v", text, got, ok)
		}
	}
}
