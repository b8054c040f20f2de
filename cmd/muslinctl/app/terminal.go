package app

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/muslin-net/muslin/cmd/muslinctl/api"
)

// progress writes over one line of a terminal; elsewhere it says nothing. An
// empty text takes the line away.
func (t *Tool) progress() func(string) {
	if !terminal(t.Err) {
		return func(string) {}
	}
	return func(text string) { fmt.Fprintf(t.Err, "\r\x1b[K%s", text) }
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// colour is the value of --color.
type colour string

func (c *colour) String() string { return string(*c) }

// Type names the values in the help.
func (*colour) Type() string { return "auto|always|never" }

// Set takes one of the values.
func (c *colour) Set(s string) error {
	switch s {
	case "auto", "always", "never":
		*c = colour(s)
		return nil
	}
	return api.Usagef("want auto, always or never, not %q", s)
}

// coloured reports whether the output is to have colour: on a terminal that has
// any, unless NO_COLOR says otherwise (https://no-color.org).
func (t *Tool) coloured() bool {
	switch t.colour {
	case "always":
		return true
	case "never":
		return false
	}
	return terminal(t.Out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// The colours that words get.
const (
	red, yellow, green = "\x1b[31m", "\x1b[33m", "\x1b[32m"
	plain              = "\x1b[0m"
)

// words are what stands out in tables and stories.
var words = map[string]string{
	"BROKEN": red, "error": red, "down": red, "MISSING": red, "silent": red,
	"warning": yellow, "waiting": yellow, "reset": yellow, "lost": red, "removed": red,
	"ok": green, "up": green, "reachable": green,
}

// paint colours, in each line, the first word of those that stand out. It is
// done last, so that no column is aligned by what nobody sees.
func (t *Tool) paint(text string) string {
	if !t.coloured() {
		return text
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(paintLine(line))
	}
	return b.String()
}

func paintLine(line string) string {
	if strings.HasPrefix(line, "+ ") || strings.HasPrefix(line, "- ") || strings.HasPrefix(line, "! ") {
		return map[byte]string{'+': green, '-': red, '!': yellow}[line[0]] + strings.TrimRight(line, "\n") + plain + "\n"
	}
	for at := 0; at < len(line); {
		start := at + len(line[at:]) - len(strings.TrimLeft(line[at:], " \t"))
		end := start + strings.IndexAny(line[start:]+" ", " \t\n:,")
		if c := words[line[start:end]]; c != "" {
			return line[:start] + c + line[start:end] + plain + line[end:]
		}
		at = max(end, start) + 1
	}
	return line
}
