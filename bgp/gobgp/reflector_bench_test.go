package gobgp

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp/internal/bgptest"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	reflectorRounds = 3
	reflectorID     = "1.0.0.1"
)

// BenchmarkReflector has the clients of a reflector announce their shares of a
// number of prefixes, all at once, until every client has what all others
// announced, and withdraw them. The clients write encoded messages and count
// prefixes, the same ones for both reflectors: a speaker of ours, and BIRD, which
// take turns. Figures are medians of three rounds; "rss" is MiB of the process
// with the prefixes in place, "peak" at its most; "x" is ours in BIRD's.
func BenchmarkReflector(b *testing.B) {
	for _, c := range []struct{ clients, prefixes int }{{10, 10000}, {100, 2000}, {100, 10000}} {
		b.Run(fmt.Sprintf("%dx%d", c.clients, c.prefixes), func(b *testing.B) {
			n := bgptest.New(b)
			where := n.Host(250)
			addrs := clientAddresses(where, c.clients)
			stars := []*star{oursAsReflector(b, n.Host(1), addrs), birdAsReflector(b, n.Host(2), addrs)}
			for _, s := range stars {
				for _, a := range addrs {
					s.links = append(s.links, bgptest.Speak(b, where.Dial(a, s.host.V4), 64512, a))
				}
			}
			for range b.N {
				for range reflectorRounds {
					for _, s := range stars {
						s.round(b, c.prefixes, addrs)
					}
				}
			}
			for _, s := range stars {
				s.report(b)
			}
			b.ReportMetric(mid(stars[0].took)/mid(stars[1].took), "x")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// star is a reflector and its clients.
type star struct {
	name            string
	host            *bgptest.Host
	pid             int
	links           []*bgptest.Wire
	took, gone, cpu []float64 // ms
	rss             []float64 // MiB
}

// clientAddresses puts the clients' addresses on one host.
func clientAddresses(h *bgptest.Host, count int) []string {
	var out []string
	var batch strings.Builder
	for i := range count {
		out = append(out, fmt.Sprintf("10.9.0.%d", 101+i))
		fmt.Fprintf(&batch, "addr add %s/24 dev e0\n", out[i])
	}
	h.Run("ip -batch " + h.Write("clients", batch.String()))
	return out
}

func oursAsReflector(b *testing.B, h *bgptest.Host, clients []string) *star {
	b.Helper()
	snap := model.Snapshot{
		Synced: true, BGP: []model.BGPConfiguration{{Name: "default", MeshEnabled: off()}},
		Pools: []model.Pool{{Name: "v4", CIDR: pfx("10.0.0.0/8"), BlockSize: 26}},
		Nodes: []model.Node{{Name: "a", IPv4: pfx(h.V4 + "/24"), RouteReflectorClusterID: reflectorID}},
		Peers: []model.BGPPeer{{Name: "reflector", PeerIP: netip.MustParseAddr(h.V4), ASN: 64512}},
	}
	for i, a := range clients {
		snap.Nodes = append(snap.Nodes, model.Node{Name: model.NodeName(fmt.Sprintf("c%d", i)), IPv4: pfx(a + "/24")})
	}
	s := startSpeaker(b, h, "")
	cfg := desired(b, snap)
	if len(cfg.Peers) != len(clients) || !cfg.Peers[0].ReflectorClient {
		b.Fatalf("the reflector has %d peers: %+v", len(cfg.Peers), cfg.Peers[:min(1, len(cfg.Peers))])
	}
	s.apply(cfg)
	return &star{name: "muslin", host: h, pid: s.cmd.Process.Pid}
}

func birdAsReflector(b *testing.B, h *bgptest.Host, clients []string) *star {
	b.Helper()
	var peers strings.Builder
	for i, a := range clients {
		peers.WriteString(bgptest.BIRDPeer(fmt.Sprintf("c%d", i), h.V4, 64512, a, 64512, "passive yes; rr client; rr cluster id "+reflectorID+";"))
	}
	h.StartBIRD("protocol direct { ipv4; }\n" + peers.String())
	text, err := os.ReadFile(h.File("bird.pid"))
	if err != nil {
		b.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		b.Fatal(err)
	}
	return &star{name: "bird", host: h, pid: pid}
}

// round announces, waits, and withdraws.
func (s *star) round(b *testing.B, prefixes int, addrs []string) {
	b.Helper()
	const first = 100 << 10 // 10.100.0.0/26
	share := prefixes / len(addrs)
	var there, gone [][]byte
	for i, a := range addrs {
		there = append(there, bgptest.Announcements(first+i*share, share, []netip.Addr{netip.MustParseAddr(a)}))
		gone = append(gone, bgptest.Withdrawals(first+i*share, share))
	}
	runtime.GC() // of the clients' rubbish, not while they are counted on
	before := s.usage(b)
	s.took = append(s.took, s.spread(b, there, share*(len(addrs)-1)))
	s.cpu = append(s.cpu, s.usage(b)-before)
	s.rss = append(s.rss, s.memory(b, "VmRSS"))
	s.gone = append(s.gone, s.spread(b, gone, 0))
}

// spread has each client write its messages and waits until each has so many
// prefixes; it gives ms from the first write to the last prefix.
func (s *star) spread(b *testing.B, messages [][]byte, count int) float64 {
	b.Helper()
	var due []<-chan time.Time
	for _, w := range s.links {
		due = append(due, w.Expect(count))
	}
	start := time.Now()
	for i, w := range s.links {
		w.Send(messages[i])
	}
	last, patience := start, time.After(2*time.Minute)
	for i, d := range due {
		select {
		case at := <-d:
			if at.After(last) {
				last = at
			}
		case <-patience:
			b.Fatalf("%s: client %d has %d prefixes of %d after two minutes", s.name, i, s.links[i].Have(), count)
		}
	}
	return float64(last.Sub(start).Microseconds()) / 1000
}

func (s *star) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(mid(s.took), s.name+"-ms")
	b.ReportMetric(mid(s.gone), s.name+"-withdraw-ms")
	b.ReportMetric(mid(s.cpu), s.name+"-cpu-ms")
	b.ReportMetric(mid(s.rss), s.name+"-rss-MiB")
	b.ReportMetric(s.memory(b, "VmHWM"), s.name+"-peak-MiB")
}

// usage is the CPU time of the process, in ms.
func (s *star) usage(b *testing.B) float64 {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.pid))
	if err != nil {
		b.Fatalf("%s has ended: %v", s.name, err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	sum := 0.0
	for _, f := range strings.Fields(rest)[11:13] { // utime, stime
		ticks, err := strconv.ParseFloat(f, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += ticks * 10 // USER_HZ is 100
	}
	return sum
}

// memory is a field of /proc/PID/status in MiB.
func (s *star) memory(b *testing.B, field string) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.pid))
	if err != nil {
		b.Fatalf("%s has ended: %v", s.name, err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(value)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb / 1024
		}
	}
	b.Fatalf("%s: no %s", s.name, field)
	return 0
}

func mid(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	return v[len(v)/2]
}
