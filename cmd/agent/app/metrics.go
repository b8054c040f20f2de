package app

import (
	"cmp"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/cnirpc/spool"
	"github.com/muslin-net/muslin/pkg/cnirpc/spoolentry"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the counters the agent's loops move; what can be read off a
// status value is collected when asked for.
type metrics struct {
	applies   *prometheus.CounterVec   // by sink and outcome
	duration  *prometheus.HistogramVec // by sink
	cni       *prometheus.HistogramVec // by verb and CNI error code
	converged prometheus.Histogram
	began     time.Time    // what news is counted from, so that it does not follow the wall clock
	news      atomic.Int64 // nanoseconds until the first news of BGP that the kernel does not have; 0: none
}

func newMetrics(reg prometheus.Registerer, read func() reading) *metrics {
	m := &metrics{
		began: time.Now(),
		applies: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "muslin_apply_total", Help: "Desired states handed to a sink, by sink and outcome.",
		}, []string{"sink", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muslin_apply_seconds", Help: "Time a sink took to reach a desired state.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
		}, []string{"sink"}),
		cni: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "muslin_cni_seconds", Help: "Time a CNI request took, by verb and CNI error code (0: success).",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2.5, 11),
		}, []string{"verb", "code"}),
		converged: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "muslin_convergence_seconds", Help: "Time from news of a peer, of routes or of its session, until the kernel has what follows.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	reg.MustRegister(m.applies, m.duration, m.cni, m.converged, statusCollector{read},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// observe counts one Apply.
func (m *metrics) observe(sink string, start time.Time, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	m.applies.WithLabelValues(sink, outcome).Inc()
	m.duration.WithLabelValues(sink).Observe(time.Since(start).Seconds())
}

// observeCNI counts one CNI request.
func (m *metrics) observeCNI(verb string, took time.Duration, code uint) {
	m.cni.WithLabelValues(verb, strconv.FormatUint(uint64(code), 10)).Observe(took.Seconds())
}

// received notes news of BGP that the kernel may have to be told of.
func (m *metrics) received(now time.Time) { m.news.CompareAndSwap(0, max(1, int64(now.Sub(m.began)))) }

// carries observes how long the news took that a step of the data plane began
// with, 0 for none, once the kernel has it; what failed stays news.
func (m *metrics) carries(news int64, done bool, now time.Time) {
	switch {
	case news == 0:
	case done:
		m.converged.Observe((now.Sub(m.began) - time.Duration(news)).Seconds())
	default:
		m.news.Store(news)
	}
}

// reading is what is read off the rooms for one scrape.
type reading struct {
	Status
	// plain are the peers that have no series of their own: nodes that reflect
	// nothing, of which a mesh has as many as the cluster has nodes, and pods.
	plain              map[netip.Addr]bool
	learned, installed int            // routes
	repairs            map[string]int // what others took away or changed, by kind
	spool              int            // DELs recorded and not yet done
}

// reading reads the rooms.
func (a *agent) reading() reading {
	r := reading{
		Status: a.status(), installed: a.routes.Stats().Installed, spool: waitingDELs(a.cfg.Spool),
		repairs: map[string]int{
			"route": a.routes.Stats().Drift, "rules": a.dataplane.nft.Stats().Drift, "policy": a.policy.sink.Stats().Drift,
			"tunnel": a.dataplane.tunnels.Drift(), "podlink": a.dataplane.podLinks.Drift(),
		},
	}
	in := a.in.gather()
	if in.rib.speaker != nil {
		r.learned = in.rib.speaker.Routes()
	}
	if in.config != nil && !a.cfg.MeshPeers {
		r.plain = plainPeers(in.config.Peers, in.snapshot.Nodes)
	}
	return r
}

// plainPeers are those of the cluster's nodes and pods that reflect nothing.
func plainPeers(peers []bgp.Peer, nodes []model.Node) map[netip.Addr]bool {
	reflectors := map[netip.Addr]bool{}
	for i := range nodes {
		if n := &nodes[i]; n.RouteReflectorClusterID != "" {
			reflectors[n.IPv4.Addr()], reflectors[n.IPv6.Addr()] = true, true
		}
	}
	out := map[netip.Addr]bool{}
	for i := range peers {
		if p := &peers[i]; p.IsPod() || p.InCluster && !reflectors[p.Address] {
			out[p.Address] = true
		}
	}
	return out
}

// waitingDELs counts the records of the spool; none where it cannot be read,
// which the CNI server logs.
func waitingDELs(dir string) int {
	entries, _ := os.ReadDir(cmp.Or(dir, spoolentry.DefaultDir))
	n := 0
	for _, e := range entries {
		n += number(spool.Names(e.Name()))
	}
	return n
}
