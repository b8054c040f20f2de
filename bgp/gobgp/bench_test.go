package gobgp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
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

// A mesh of speakers, each with one block, from the first configuration to
// everybody knowing everybody's.
func BenchmarkMesh(b *testing.B) {
	for _, count := range []int{20, 60} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				n := bgptest.New(b)
				snap := model.Snapshot{Synced: true, BGP: []model.BGPConfiguration{{Name: "default"}}}
				speakers, hosts := make([]*process, count), make([]*bgptest.Host, count)
				for i := range speakers {
					hosts[i] = n.Host(i + 1)
				}
				bgptest.Introduce(hosts)
				for i, h := range hosts {
					speakers[i] = startSpeaker(b, h, "")
					name := model.NodeName(fmt.Sprintf("n%d", i))
					snap.Nodes = append(snap.Nodes, model.Node{Name: name, IPv4: pfx(h.V4 + "/24")})
					snap.Blocks = append(snap.Blocks, model.Block{CIDR: pfx(fmt.Sprintf("10.244.%d.0/26", i)), Node: name, State: model.BlockConfirmed})
				}
				b.StartTimer()
				for i, s := range speakers {
					c, _ := bgp.Desired(snap, snap.Nodes[i].Name)
					s.apply(c)
				}
				var cpu, rss int64
				for _, s := range speakers {
					s.until(func() {}, count-1)
				}
				b.StopTimer()
				for _, s := range speakers {
					a := s.ask(request{Count: true})
					cpu, rss = cpu+a.Usage, rss+a.RSS
					s.kill()
				}
				b.ReportMetric(float64(cpu)/1e9, "cpu-s")
				b.ReportMetric(float64(rss)/float64(count)/1024, "MiB-each")
				b.StartTimer()
			}
		})
	}
}
