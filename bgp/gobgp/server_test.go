package gobgp

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
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

// A server that another identity has replaced is no fault for who looked at it just then.
func TestIdentityChangesUnderStatus(t *testing.T) {
	log := &lockedBuffer{}
	s := New(Options{Logger: slog.New(slog.NewTextHandler(log, nil))})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = s.Run(ctx) })
	running.Go(func() {
		for ctx.Err() == nil {
			s.detailMu.Lock()
			s.detailTime = time.Time{} // as if the last look were long ago
			s.detailMu.Unlock()
			s.details()
			if _, err := s.Refused(); err != nil {
				t.Error(err)
			}
		}
	})
	peers := []bgp.Peer{{Address: netip.MustParseAddr("127.0.0.8"), ASN: 64512, Port: 1, Families: []model.Family{model.IPv4}}}
	for i := range 100 {
		id := netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})
		if err := s.Apply(ctx, bgp.Config{ASN: 64512, RouterID: id, ListenPort: -1, Peers: peers}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	running.Wait()
	s.Close(t.Context())
	if text := log.String(); strings.Contains(text, "level=ERROR") {
		t.Error(text)
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
