package gobgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

// From one BIRD's table to Learned, and away again, with the CPU time of the
// speaker: the part of convergence that is not the kernel's.
func BenchmarkLearn(b *testing.B) {
	for _, count := range []int{1000, 10000, 50000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			n := bgptest.New(b)
			h, r := n.Host(1), n.Host(2)
			var routes strings.Builder
			for i := range count {
				fmt.Fprintf(&routes, "route %s/26 blackhole;\n", netip.AddrFrom4([4]byte{10, byte(100 + i>>10), byte(i >> 2), byte(i << 6)}))
			}
			table := map[string]bool{}
			for l := range strings.Lines(routes.String()) {
				table[l] = true
			}
			bird := r.StartBIRD("protocol static st { ipv4; disabled;\n" + routes.String() + "}\n" + bgptest.BIRDPeer("node", r.V4, 65001, h.V4, 64512, ""))
			s := startSpeaker(b, h, "")
			s.apply(desired(b, withPeer(clusterOf(h), r.V4, 65001)))
			s.established(r.V4)
			var learn, forget time.Duration
			var cpu int64
			for b.Loop() {
				before := s.ask(request{Count: true}).Usage
				learn += s.until(func() { bird.Ask("enable", "st") }, len(table))
				cpu += s.ask(request{Count: true}).Usage - before
				forget += s.until(func() { bird.Ask("disable", "st") }, 0)
			}
			b.ReportMetric(float64(learn.Milliseconds())/float64(b.N), "learn-ms")
			b.ReportMetric(float64(forget.Milliseconds())/float64(b.N), "forget-ms")
			b.ReportMetric(float64(cpu)/1e6/float64(b.N), "learn-cpu-ms")
			b.ReportMetric(float64(len(table)), "routes")
		})
	}
}

func (p *process) until(do func(), count int) time.Duration {
	start := time.Now()
	do()
	for p.ask(request{Count: true}).Routes != count {
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}
