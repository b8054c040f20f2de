package bench

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
)

const convergeObjects = `apiVersion: v1
kind: Node
metadata: {name: bench, annotations: {projectcalico.org/IPv4Address: %s/24}}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.32.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: of-others}
spec: {cidr: 10.96.0.0/11, natOutgoing: true, disabled: true}
---
apiVersion: projectcalico.org/v3
kind: ClusterInformation
metadata: {name: default}
spec: {datastoreReady: true}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512, nodeToNodeMeshEnabled: false}
---
apiVersion: projectcalico.org/v3
kind: BGPPeer
metadata: {name: sender}
spec: {peerIP: %s, asNumber: 64512}
`

const (
	convergeRounds = 7
	firstPrefix    = 100 << 10 // 10.100.0.0/26
	convergeSettle = 12 * time.Second
)

// BenchmarkConvergence has one internal peer announce /26 prefixes over 100
// next hops, and withdraw them: from the first byte on the wire until the
// kernel has them all, or none. The agent, BIRD and FRR take turns; the sender
// writes the same bytes to each. Figures are medians of 7 rounds in ms, "x" is
// ours in BIRD's, "faults" are pages that the kernel had to give. "rss" is in MiB
// over the memory at rest before any prefix, with the prefixes in place for 12 s;
// "peak" the highest of the process.
func BenchmarkConvergence(b *testing.B) {
	n := bgptest.New(b)
	sender := n.Host(1)
	var nextHops []netip.Addr
	for i := range 100 {
		nextHops = append(nextHops, netip.AddrFrom4([4]byte{10, 9, 0, byte(101 + i)}))
	}
	l := sender.Listen()
	receivers := []*receiver{
		startAgent(b, n, 2, fmt.Sprintf(convergeObjects, "10.9.0.2", sender.V4)),
		startBIRD(b, n, 3, sender.V4), startFRR(b, n, 4, sender.V4),
	}
	links := accept(b, l, receivers)
	idle := map[string]float64{}
	time.Sleep(convergeSettle)
	for _, r := range receivers {
		idle[r.name] = r.memory(b, "VmRSS")
	}
	for _, count := range []int{1000, 10000, 50000} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			there, gone := bgptest.Announcements(firstPrefix, count, nextHops), bgptest.Withdrawals(firstPrefix, count)
			figures := map[string][]float64{}
			for range b.N {
				for round := range convergeRounds {
					for i := range receivers {
						r := receivers[(i+round)%len(receivers)]
						converge(b, r, links[r.name], there, gone, count, nextHops, figures)
					}
				}
			}
			for _, r := range receivers {
				links[r.name].Send(there)
				r.until(b, time.Now(), count)
			}
			time.Sleep(convergeSettle)
			for _, r := range receivers {
				figures[r.name+" rss"] = []float64{r.memory(b, "VmRSS")}
				links[r.name].Send(gone)
				r.until(b, time.Now(), 0)
			}
			for _, r := range receivers {
				for _, what := range []string{"learn-ms", "forget-ms", "learn-cpu-ms", "learn-faults"} {
					b.ReportMetric(median(figures[r.name+" "+what]), r.name+"-"+what)
				}
				b.ReportMetric(median(figures[r.name+" rss"])-idle[r.name], r.name+"-rss-MiB")
				b.ReportMetric(r.memory(b, "VmHWM"), r.name+"-peak-MiB")
			}
			for _, what := range []string{"learn-ms", "forget-ms"} {
				b.ReportMetric(median(figures["muslin "+what])/median(figures["bird "+what]), strings.TrimSuffix(what, "-ms")+"-x")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// accept gives every receiver its session and says that there is nothing to
// announce so far.
func accept(b *testing.B, l net.Listener, receivers []*receiver) map[string]*bgptest.Wire {
	b.Helper()
	out := map[string]*bgptest.Wire{}
	for len(out) < len(receivers) {
		c, err := l.Accept()
		if err != nil {
			b.Fatal(err)
		}
		from, _, _ := strings.Cut(c.RemoteAddr().String(), ":")
		for _, r := range receivers {
			if r.host.V4 == from && out[r.name] == nil {
				out[r.name] = bgptest.Speak(b, c, 64512, "10.9.0.1")
				out[r.name].Send(bgptest.EndOfRIB())
			}
		}
	}
	return out
}

// converge is one turn of one receiver.
func converge(b *testing.B, r *receiver, w *bgptest.Wire, there, gone []byte, count int, nextHops []netip.Addr, figures map[string][]float64) {
	b.Helper()
	note := func(what string, v float64) { figures[r.name+" "+what] = append(figures[r.name+" "+what], v) }
	r.rest(b)
	r.empty = r.routes(b)
	cpu, faults, start := r.cpu(b), r.faults(b), time.Now()
	w.Send(there)
	note("learn-ms", ms(r.until(b, start, count)))
	note("learn-cpu-ms", ms(r.cpu(b)-cpu))
	note("learn-faults", float64(r.faults(b)-faults))
	r.verify(b, count, nextHops)
	r.rest(b)
	start = time.Now()
	w.Send(gone)
	note("forget-ms", ms(r.until(b, start, 0)))
}

// verify looks at some routes: they have to lead where they were announced to.
func (r *receiver) verify(b *testing.B, count int, nextHops []netip.Addr) {
	b.Helper()
	for _, i := range []int{0, count / 3, count - 1} {
		want := fmt.Sprintf("via %s dev e0", nextHops[i%len(nextHops)])
		if got := r.host.Run("ip route show " + bgptest.Prefix(firstPrefix+i).String()); !strings.Contains(got, want) {
			b.Fatalf("%s: route %s is %q, want %q", r.name, bgptest.Prefix(firstPrefix+i), got, want)
		}
	}
}

func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
