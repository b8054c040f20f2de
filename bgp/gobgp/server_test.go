package gobgp

import (
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// A speaker whose port is taken tries again every second, for hours: nothing may
// be left of the servers that did not start, nor of one that was stopped. Not
// parallel, so that no other test's goroutines are counted.
func TestStartsLeaveNoGoroutines(t *testing.T) {
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	free, busy := netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")
	for name, c := range map[string]struct {
		listen []netip.Addr
		starts bool
	}{
		"taken":        {[]netip.Addr{busy}, false},
		"second-taken": {[]netip.Addr{free, busy}, false},
		"free":         {[]netip.Addr{free}, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := gobgpGoroutines()
			for range 50 {
				s, err := startServer(t.Context(), slog.New(slog.DiscardHandler), bgp.Config{
					ASN: 64512, RouterID: busy, ListenPort: port, Listen: c.listen,
				}, func(peerRecord) {})
				if started := err == nil; started != c.starts {
					t.Fatalf("started: %v, %v", started, err)
				}
				if s != nil {
					s.stop()
				}
			}
			bgptest.Eventually(t, "goroutines", func() string {
				if after := gobgpGoroutines(); len(after) > len(before) {
					return after[len(after)-1]
				}
				return ""
			})
		})
	}
}

// gobgpGoroutines are the stacks of those that GoBGP runs.
func gobgpGoroutines() []string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	var out []string
	for _, g := range strings.Split(string(buf), "\n\n") {
		if strings.Contains(g, "osrg/gobgp") {
			out = append(out, g)
		}
	}
	return out
}
