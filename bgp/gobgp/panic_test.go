package gobgp

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// explosive panics in the goroutine that takes in a peer's messages, on an
// UPDATE with one prefix: no message is known that does it in a real GoBGP.
type explosive struct{ slog.Handler }

func (e explosive) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "received update" {
		r.Attrs(func(a slog.Attr) bool {
			if strings.Contains(fmt.Sprint(a.Value.Any()), "10.244.66.0/26") {
				panic("boom")
			}
			return true
		})
	}
	return e.Handler.Handle(ctx, r)
}

func (e explosive) WithAttrs(as []slog.Attr) slog.Handler {
	return explosive{e.Handler.WithAttrs(as)}
}
func (e explosive) WithGroup(name string) slog.Handler { return explosive{e.Handler.WithGroup(name)} }

// A message on which GoBGP panics costs the session with the peer that sent it,
// and no other one. The release's process ends, and with it CNI and routes.
func TestPanicEndsOneSession(t *testing.T) {
	t.Parallel()
	n := bgptest.New(t)
	a, b, c := n.Host(1), n.Host(2), n.Host(3)
	const good = "protocol static { ipv4; route 10.244.50.0/26 blackhole; }\n"
	const bad = "protocol static bad { disabled; ipv4; route 10.244.66.0/26 blackhole; }\n"
	router := b.StartBIRD(bad + bgptest.BIRDPeer("node", b.V4, 65001, a.V4, 64512, ""))
	c.StartBIRD(good + bgptest.BIRDPeer("node", c.V4, 65002, a.V4, 64512, ""))
	s := startSpeaker(t, a, "debug explosive")
	s.apply(desired(t, withPeer(withPeer(clusterOf(a), b.V4, 65001), c.V4, 65002)))
	s.established(b.V4)
	s.established(c.V4)
	if !patched("0009") {
		s.dies = true
		router.Ask("enable", "bad")
		if err := s.cmd.Wait(); err == nil || !strings.Contains(s.log.String(), "panic: boom") {
			t.Errorf("the release lives on: %v", err)
		}
		return
	}
	router.Ask("enable", "bad")
	bgptest.Eventually(t, "reason", func() string { return says(s, "internal-error", "boom") })
	bgptest.Eventually(t, "notification", bgptest.Contains(func() string {
		text, _ := os.ReadFile(b.File("bird.log"))
		return string(text)
	}, "node: Received: "))
	for _, p := range s.state().Peers {
		if p.Address.String() == c.V4 && (!p.Up() || p.Flaps > 0) {
			t.Errorf("the other session suffers:\n%s", s.peers())
		}
	}
	bgptest.Eventually(t, "routes of the other", bgptest.Contains(s.learned, "10.244.50.0/26"))
}
