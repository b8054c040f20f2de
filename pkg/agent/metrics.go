package agent

import (
	"strconv"
	"time"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// metrics are the counters the agent's loops move; what can be read off a
// status value is collected when asked for.
type metrics struct {
	applies  *prometheus.CounterVec   // by sink and outcome
	duration *prometheus.HistogramVec // by sink
	cni      *prometheus.HistogramVec // by verb and CNI error code
}

func newMetrics(reg prometheus.Registerer, status func() Status) *metrics {
	m := &metrics{
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
	}
	reg.MustRegister(m.applies, m.duration, m.cni, statusCollector{status},
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

var (
	peerLabels    = []string{"peer", "asn", "kind"}
	descPeerUp    = prometheus.NewDesc("muslin_bgp_peer_established", "1 while the session is established.", peerLabels, nil)
	descPeerSince = prometheus.NewDesc("muslin_bgp_peer_state_since_seconds", "Unix time of the last change of state.", peerLabels, nil)
	descPeerFlaps = prometheus.NewDesc("muslin_bgp_peer_flaps_total", "Times the session was lost.", peerLabels, nil)
	descPeerError = prometheus.NewDesc("muslin_bgp_peer_error", "1 while the session is not established, by the reason.", append([]string{"reason"}, peerLabels...), nil)
	descPeerPfx   = prometheus.NewDesc("muslin_bgp_peer_prefixes", "Prefixes by family and direction (received, accepted, sent).", append([]string{"family", "direction"}, peerLabels...), nil)
	descPeerMsgs  = prometheus.NewDesc("muslin_bgp_peer_messages_total", "BGP messages by direction.", append([]string{"direction"}, peerLabels...), nil)
	descBlocks    = prometheus.NewDesc("muslin_ipam_blocks", "Blocks of this node, by state.", []string{"state"}, nil)
	descRefusals  = prometheus.NewDesc("muslin_bgp_origin_refusals_total", "Learned next hops that IPAM did not confirm, by reason.", []string{"reason"}, nil)
	descRefused   = prometheus.NewDesc("muslin_bgp_origin_refused", "Learned next hops that IPAM does not confirm now.", nil, nil)
	descPolicy    = prometheus.NewDesc("muslin_bgp_refused_prefixes", "Prefixes that a peer announces and that are not used, by reason.", []string{"peer", "reason"}, nil)
	descProblems  = prometheus.NewDesc("muslin_problems", "Objects or fields that could not be honoured.", nil, nil)
	descChains    = prometheus.NewDesc("muslin_policy_chains", "Chains of network policy that the kernel was told.", nil, nil)
	descEndpoints = prometheus.NewDesc("muslin_policy_endpoints", "Pods that network policy knows, whether or not one selects them.", nil, nil)
	descSets      = prometheus.NewDesc("muslin_policy_sets", "Sets that rules of network policy name.", nil, nil)
	descMembers   = prometheus.NewDesc("muslin_policy_set_members", "Members of all sets of network policy: addresses, ranges, ports.", nil, nil)
	descBuild     = prometheus.NewDesc("muslin_build_info", "1; of which version the agent and the GoBGP in it are.", []string{"version", "gobgp"}, nil)
)

// statusCollector turns a Status into metrics when it is scraped.
type statusCollector struct{ status func() Status }

// Describe implements prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descPeerUp, descPeerSince, descPeerFlaps, descPeerError, descPeerPfx, descPeerMsgs, descBlocks, descRefusals, descRefused, descPolicy, descProblems, descChains, descEndpoints, descSets, descMembers, descBuild} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	s := c.status()
	for _, p := range s.Peers {
		collectPeer(ch, p)
	}
	states := map[model.BlockState]int{model.BlockConfirmed: 0, model.BlockPending: 0}
	for _, b := range s.Blocks {
		states[b.State]++
	}
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(descBlocks, prometheus.GaugeValue, float64(n), string(state))
	}
	for reason, n := range s.Origin.Total {
		ch <- prometheus.MustNewConstMetric(descRefusals, prometheus.CounterValue, float64(n), reason)
	}
	ch <- prometheus.MustNewConstMetric(descRefused, prometheus.GaugeValue, float64(s.Origin.Standing))
	for _, r := range s.Refused {
		ch <- prometheus.MustNewConstMetric(descPolicy, prometheus.GaugeValue, float64(r.Count), r.Peer.String(), r.Reason)
	}
	for desc, n := range map[*prometheus.Desc]int{descChains: s.Policy.Chains, descEndpoints: s.Policy.Endpoints, descSets: s.Policy.Sets, descMembers: s.Policy.Members} {
		ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(n))
	}
	ch <- prometheus.MustNewConstMetric(descProblems, prometheus.GaugeValue, float64(len(s.Problems)))
	ch <- prometheus.MustNewConstMetric(descBuild, prometheus.GaugeValue, 1, s.Version, gobgp.Release())
}

func collectPeer(ch chan<- prometheus.Metric, p model.PeerStatus) {
	labels := []string{p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10), p.Kind}
	up := 0.0
	if p.State == "Established" {
		up = 1
	}
	ch <- prometheus.MustNewConstMetric(descPeerUp, prometheus.GaugeValue, up, labels...)
	if up == 0 && p.LastReason != "" {
		ch <- prometheus.MustNewConstMetric(descPeerError, prometheus.GaugeValue, 1, append([]string{p.LastReason}, labels...)...)
	}
	if !p.Since.IsZero() {
		ch <- prometheus.MustNewConstMetric(descPeerSince, prometheus.GaugeValue, float64(p.Since.Unix()), labels...)
	}
	ch <- prometheus.MustNewConstMetric(descPeerFlaps, prometheus.CounterValue, float64(p.Flaps), labels...)
	ch <- prometheus.MustNewConstMetric(descPeerMsgs, prometheus.CounterValue, float64(p.MessagesIn), append([]string{"in"}, labels...)...)
	ch <- prometheus.MustNewConstMetric(descPeerMsgs, prometheus.CounterValue, float64(p.MessagesOut), append([]string{"out"}, labels...)...)
	for direction, byFamily := range map[string]map[string]int{"received": p.Received, "accepted": p.Accepted, "sent": p.Sent} {
		for family, n := range byFamily {
			ch <- prometheus.MustNewConstMetric(descPeerPfx, prometheus.GaugeValue, float64(n), append([]string{family, direction}, labels...)...)
		}
	}
}
