package app

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A capability that is missing is a problem of the node unless it is left out on
// purpose; a list that says what is not so is one, too.
func TestCapabilitiesLeftOut(t *testing.T) {
	const all = 1<<unix.CAP_NET_ADMIN | 1<<unix.CAP_NET_RAW | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_BIND_SERVICE
	for _, c := range []struct {
		name     string
		without  uint64 // of all
		list     []string
		lacking  bool
		problems []string // what each has
		accepted []string // beginnings
	}{
		{name: "all are there"},
		{name: "not on purpose", without: 1 << unix.CAP_NET_RAW, lacking: true, problems: []string{"capability NET_RAW is missing"}},
		{name: "on purpose", without: 1 << unix.CAP_NET_RAW, list: []string{"NET_RAW"}, accepted: []string{"NET_RAW: no router advertisements"}},
		{name: "as capabilities(7) writes it, twice", without: 1 << unix.CAP_NET_RAW, list: []string{"cap_net_raw", "NET_RAW"}, accepted: []string{"NET_RAW"}},
		{name: "one of two", without: 1<<unix.CAP_NET_RAW | 1<<unix.CAP_NET_BIND_SERVICE, list: []string{"net_bind_service"}, lacking: true,
			problems: []string{"capability NET_RAW is missing"}, accepted: []string{"NET_BIND_SERVICE: BGP cannot listen"}},
		{name: "unknown", list: []string{"NET_ROW"}, problems: []string{`"NET_ROW" is no capability that the agent is granted`}},
		{name: "unknown beside a known one", without: 1 << unix.CAP_NET_RAW, list: []string{"SYS_PTRACE", "NET_RAW"},
			problems: []string{`"SYS_PTRACE" is no capability`}, accepted: []string{"NET_RAW"}},
		{name: "there after all", list: []string{"NET_RAW"}, problems: []string{"NET_RAW is granted after all"}},
		{name: "vital", without: 1 << unix.CAP_NET_ADMIN, list: []string{"NET_ADMIN"}, lacking: true,
			problems: []string{"capability NET_ADMIN is missing", "NET_ADMIN cannot be left out"}},
		{name: "vital, and there", list: []string{"SYS_ADMIN"}, problems: []string{"SYS_ADMIN cannot be left out"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var text bytes.Buffer
			log := slog.New(slog.NewTextHandler(&text, nil))
			a := &agent{cfg: Config{Node: "n1", WithoutCapabilities: c.list}, log: log, own: newNodeProblems(log)}
			if lacking := a.checkCapabilities(all &^ c.without); lacking != c.lacking {
				t.Errorf("lacking: %v", lacking)
			}
			problems, _ := a.own.get()
			if len(problems) != len(c.problems) || len(a.without) != len(c.accepted) {
				t.Fatalf("problems %v, without %q", problems, a.without)
			}
			for i, p := range problems {
				if !strings.Contains(p.Message, c.problems[i]) {
					t.Errorf("problem %q, want %q", p.Message, c.problems[i])
				}
			}
			for i, want := range c.accepted {
				if !strings.HasPrefix(a.without[i], want) {
					t.Errorf("without %q, want %q", a.without[i], want)
				}
			}
			if lines := strings.Count(text.String(), "left out on purpose"); lines != len(c.accepted) {
				t.Errorf("logged %d times:\n%s", lines, text.String())
			}
		})
	}
}
