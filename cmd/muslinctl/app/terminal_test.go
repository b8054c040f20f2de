package app

import (
	"bytes"
	"strings"
	"testing"
)

func TestColourOnlyWhereItIsWanted(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	var out bytes.Buffer
	tl := tool(&out)
	const line = "error   PeerDown   n1   ok\n"
	for value, want := range map[string]string{"": line, "auto": line, "never": line, "always": red + "error" + plain + "   PeerDown   n1   ok\n"} {
		tl.colour = colour(value)
		if got := tl.paint(line); got != want {
			t.Errorf("--color=%s: %q, want %q", value, got, want)
		}
	}
}

func TestTheFirstWordStandsOut(t *testing.T) {
	for line, want := range map[string]string{
		"  ok      rib  n1 has learned\n": "  " + green + "ok" + plain + "      rib  n1 has learned\n",
		"10.0.0.1  global  down  -\n":     "10.0.0.1  global  " + red + "down" + plain + "  -\n",
		"nothing here\n":                  "nothing here\n",
		"+ 10.0.0.0/8 via 1.2.3.4\n":      green + "+ 10.0.0.0/8 via 1.2.3.4" + plain + "\n",
		"\n":                              "\n",
		"lost":                            red + "lost" + plain,
	} {
		if got := paintLine(line); got != want {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestColourFlagNamesItsValues(t *testing.T) {
	var out, errs bytes.Buffer
	tl := tool(&out)
	tl.Err = &errs
	if code := Main(t.Context(), tl, []string{"muslinctl", "version", "--client", "--color=green"}); code != 2 || !strings.Contains(errs.String(), "want auto, always or never") {
		t.Errorf("exit code %d, %s", code, errs.String())
	}
}
