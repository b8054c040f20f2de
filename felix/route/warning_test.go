package route

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nstest"
)

// TestDriftThatLastsIsWarnedOf: once, after drift in each of three minutes in a
// row; a single bad minute, or one now and then, is nothing.
func TestDriftThatLastsIsWarnedOf(t *testing.T) {
	minute := func(n float64) time.Time {
		return time.Unix(1_800_000_000, 0).Add(time.Duration(n * float64(time.Minute)))
	}
	for name, c := range map[string]struct {
		at   []float64
		want []float64
	}{
		"a burst":              {[]float64{0, 0.1, 0.2, 0.3}, nil},
		"now and then":         {[]float64{0, 5, 10, 15, 20}, nil},
		"a minute of peace":    {[]float64{0, 1, 5, 6}, nil},
		"again and again":      {[]float64{0, 1, 1.5, 2, 3, 4, 5}, []float64{2}},
		"a while after a rest": {[]float64{0, 9, 10, 11, 12}, []float64{11}},
	} {
		var d driftWatch
		var got []float64
		for _, at := range c.at {
			if d.seen(minute(at)) {
				got = append(got, at)
			}
		}
		if len(got) != len(c.want) || len(got) > 0 && got[0] != c.want[0] {
			t.Errorf("%s: warned at %v, want %v", name, got, c.want)
		}
	}
}

// TestWarningNamesTheCulprit has the third minute of drift come by the clock of
// the watch, and the warning name the route and the setting.
func TestWarningNamesTheCulprit(t *testing.T) {
	l := newLab(t)
	var log lockedBuffer
	r, err := New(Options{NetNS: l.node.Path, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-r.Ready()
	r.mu.Lock()
	r.drift = driftWatch{windows: 2, start: time.Now().Add(-90 * time.Second)}
	r.mu.Unlock()
	apply(t, r, state(true, unicast("10.65.1.0/26", l.hop("10.1.0.254", "eth0"))))
	l.node.IP("route del 10.65.1.0/26 proto 109")
	nstest.Eventually(t, "the warning is there", func() bool {
		return strings.Contains(log.String(), "10.65.1.0/26") && strings.Contains(log.String(), "ManageForeignRoutes=no")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
