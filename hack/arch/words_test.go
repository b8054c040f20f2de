package arch_test

import (
	"go/scanner"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// privateWords are words that this project once had for what the field has a word
// for. The field's word is the one to use in an identifier.
var privateWords = map[string]string{
	"speech": "BGP loop", "casefile": "builder", "teller": "builder", "strange": "external", "stranger": "foreign", "strangers": "foreign",
	"heir": "next device", "heirs": "next devices", "predecessor": "previous device", "ghost": "withdrawn", "ghosts": "withdrawn",
	"farewell": "shutdown", "departure": "shutdown", "linger": "grace, retain", "lingering": "retained", "wishes": "requested",
	"softer": "level filter", "tend": "advance", "remake": "silent reset", "nudge": "wake", "pace": "debounce, interval", "hint": "notify, changed",
	"roomy": "has free", "vacated": "emptied", "fullness": "usage", "debt": "pending release", "debts": "pending releases",
	"promise": "reserve", "unpromise": "unreserve", "said": "stated, reported", "told": "reported, announced", "untold": "unreported",
	"asked": "requested", "unasked": "unrequested", "heard": "received", "judge": "evaluate", "judged": "evaluated", "judges": "evaluates",
	"way": "next hop, path, route lookup", "ways": "next hops, paths, FIB", "wires": "interfaces",
}

// kept are identifiers with such a word in them that are no words of our own: of a
// library, a protocol, or of the text that a user reads.
var kept = map[string]string{
	"Hint": "a field of an error: what the user may do", "hint": "the same, before it is printed",
}

var parts = regexp.MustCompile(`[A-Z]+(?:[a-z0-9]*)|[a-z0-9]+`)

// TestIdentifiersAreTheFieldsWords looks at every identifier but names of tests,
// which are sentences.
func TestIdentifiersAreTheFieldsWords(t *testing.T) {
	out, err := exec.Command("git", "-C", "../..", "ls-files", "*.go").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range strings.Fields(string(out)) {
		src, err := os.ReadFile(filepath.Join("../..", file))
		if err != nil {
			t.Fatal(err)
		}
		for name, line := range identifiers(src) {
			if kept[name] != "" || strings.HasPrefix(name, "Test") {
				continue
			}
			for _, word := range parts.FindAllString(name, -1) {
				if better, ok := privateWords[strings.ToLower(word)]; ok {
					t.Errorf("%s:%d: %s: the field's word for %q is: %s", file, line, name, word, better)
				}
			}
		}
	}
}

// identifiers gives those of a file, each with the first line it is on.
func identifiers(src []byte) map[string]int {
	set := token.NewFileSet()
	file := set.AddFile("", set.Base(), len(src))
	var s scanner.Scanner
	s.Init(file, src, nil, 0)
	out := map[string]int{}
	for {
		pos, tok, lit := s.Scan()
		if tok == token.EOF {
			return out
		}
		if _, ok := out[lit]; tok == token.IDENT && !ok {
			out[lit] = file.Line(pos)
		}
	}
}
