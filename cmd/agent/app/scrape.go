package app

import (
	"runtime"
	"strconv"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
)

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
	descPolicy    = prometheus.NewDesc("muslin_bgp_refused_prefixes", "Prefixes that a peer announces and that are not used, by reason; peer is cluster for nodes and pods without series of their own.", []string{"peer", "reason"}, nil)
	descProblems  = prometheus.NewDesc("muslin_problems", "Objects or fields that could not be honoured.", nil, nil)
	descChains    = prometheus.NewDesc("muslin_policy_chains", "Chains of network policy that the kernel was told.", nil, nil)
	descEndpoints = prometheus.NewDesc("muslin_policy_endpoints", "Pods that network policy knows, whether or not one selects them.", nil, nil)
	descSets      = prometheus.NewDesc("muslin_policy_sets", "Sets that rules of network policy name.", nil, nil)
	descMembers   = prometheus.NewDesc("muslin_policy_set_members", "Members of all sets of network policy: addresses, ranges, ports.", nil, nil)
	descDenied    = prometheus.NewDesc("muslin_policy_denied_total", "Packets that network policy denied, by direction.", []string{"direction"}, nil)
	descBuild     = prometheus.NewDesc("muslin_build_info", "1; of which version the agent, the Go and the GoBGP in it are.", []string{"version", "goversion", "gobgp"}, nil)
	descReady     = prometheus.NewDesc("muslin_ready", "1 once the agent waits for nothing, as /readyz says.", nil, nil)
	descSessions  = prometheus.NewDesc("muslin_bgp_sessions", "Configured sessions, by kind and state.", []string{"kind", "state"}, nil)
	descBFD       = prometheus.NewDesc("muslin_bfd_session_up", "1 while BFD says that the peer is there.", peerLabels, nil)
	descRoutes    = prometheus.NewDesc("muslin_bgp_routes", "Prefixes learned, and routes of Muslin's that the kernel has (installed), those of pods too.", []string{"state"}, nil)
	descRepairs   = prometheus.NewDesc("muslin_kernel_repairs_total", "Times that somebody else took away or changed what is Muslin's in the kernel, by kind.", []string{"kind"}, nil)
	descSpool     = prometheus.NewDesc("muslin_cni_spool_entries", "DELs recorded and not yet done.", nil, nil)
)

// descs are all of a statusCollector's.
var descs = []*prometheus.Desc{
	descPeerUp, descPeerSince, descPeerFlaps, descPeerError, descPeerPfx, descPeerMsgs, descBFD, descSessions, descRoutes,
	descBlocks, descRefusals, descRefused, descPolicy, descProblems, descReady, descRepairs, descSpool,
	descChains, descEndpoints, descSets, descMembers, descDenied, descBuild,
}

// statusCollector turns a reading into metrics when it is scraped. There are few
// series, however many nodes the cluster has.
type statusCollector struct{ read func() reading }

// Describe implements prometheus.Collector.
func (statusCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c statusCollector) Collect(ch chan<- prometheus.Metric) {
	r := c.read()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	collectSessions(gauge, r.Peers)
	for i := range r.Peers {
		if p := &r.Peers[i]; !r.plain[p.Address] {
			collectPeer(ch, p)
		}
	}
	collectRefused(gauge, r)
	states := map[model.BlockState]int{model.BlockConfirmed: 0, model.BlockPending: 0}
	for _, b := range r.Blocks {
		states[b.State]++
	}
	for state, n := range states {
		gauge(descBlocks, n, string(state))
	}
	for reason, n := range r.Origin.Total {
		ch <- prometheus.MustNewConstMetric(descRefusals, prometheus.CounterValue, float64(n), reason)
	}
	for kind, n := range r.repairs {
		ch <- prometheus.MustNewConstMetric(descRepairs, prometheus.CounterValue, float64(n), kind)
	}
	for state, n := range map[string]int{"learned": r.learned, "installed": r.installed} {
		gauge(descRoutes, n, state)
	}
	for desc, n := range map[*prometheus.Desc]int{
		descRefused: r.Origin.Standing, descProblems: len(r.Problems), descReady: number(len(r.Waiting) == 0), descSpool: r.spool,
		descChains: r.Policy.Chains, descEndpoints: r.Policy.Endpoints, descSets: r.Policy.Sets, descMembers: r.Policy.Members,
	} {
		gauge(desc, n)
	}
	for direction, n := range map[string]uint64{"ingress": r.Policy.DeniedIngress, "egress": r.Policy.DeniedEgress} {
		ch <- prometheus.MustNewConstMetric(descDenied, prometheus.CounterValue, float64(n), direction)
	}
	gauge(descBuild, 1, r.Version, runtime.Version(), gobgp.Release())
}

func number(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// collectSessions counts all sessions, those without series of their own too.
// There is a count for what has none: an alert tells nothing from no sample.
func collectSessions(gauge func(*prometheus.Desc, int, ...string), peers []model.PeerStatus) {
	type session struct {
		kind  model.PeerKind
		state model.SessionState
	}
	counts := map[session]int{}
	for _, kind := range []model.PeerKind{model.PeerMesh, model.PeerNode, model.PeerGlobal} {
		for _, state := range []model.SessionState{"Idle", "Connect", "Active", "OpenSent", "OpenConfirm", model.Established} {
			counts[session{kind, state}] = 0
		}
	}
	for i := range peers {
		counts[session{peers[i].Kind, peers[i].State}]++
	}
	for at, n := range counts {
		gauge(descSessions, n, string(at.kind), string(at.state))
	}
}

// collectRefused counts refused prefixes: for each peer that has series of its
// own, and for all others together.
func collectRefused(gauge func(*prometheus.Desc, int, ...string), r reading) {
	counts := map[[2]string]int{}
	for _, c := range r.Refused {
		peer := c.Peer.String()
		if r.plain[c.Peer] {
			peer = "cluster"
		}
		counts[[2]string{peer, c.Reason}] += c.Count
	}
	for at, n := range counts {
		gauge(descPolicy, n, at[0], at[1])
	}
}

// collectPeer gives a peer its own series.
func collectPeer(ch chan<- prometheus.Metric, p *model.PeerStatus) {
	labels := []string{p.Address.String(), strconv.FormatUint(uint64(p.ASN), 10), string(p.Kind)}
	up := number(p.Up())
	ch <- prometheus.MustNewConstMetric(descPeerUp, prometheus.GaugeValue, float64(up), labels...)
	if p.BFDState != "" {
		ch <- prometheus.MustNewConstMetric(descBFD, prometheus.GaugeValue, float64(number(p.BFDState == "Up")), labels...)
	}
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
