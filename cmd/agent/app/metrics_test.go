package app

import (
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A session that is down is counted by its reason; one that is up is not,
// whatever ended the one before.
func TestPeerErrorMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() reading {
		return reading{Status: Status{Peers: []model.PeerStatus{
			{Address: addrOf("192.0.2.1"), ASN: 65001, Kind: "GlobalPeer", State: "Active", LastReason: "connection-refused"},
			{Address: addrOf("192.0.2.2"), ASN: 65001, Kind: "GlobalPeer", State: "Established", LastReason: "hold-timer-expired"},
		}}}
	}})
	got := labels(t, reg, "muslin_bgp_peer_error")
	if want := "asn=65001 kind=GlobalPeer peer=192.0.2.1 reason=connection-refused"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is scraped tells a node with the patched GoBGP from one without.
func TestBuildInfoMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() reading { return reading{Status: Status{Version: "v9.9.9"}} }})
	got := labels(t, reg, "muslin_build_info")
	if want := "gobgp=" + gobgp.Release() + " goversion=" + runtime.Version() + " version=v9.9.9"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// An agent of a cluster of 250 nodes has few series, and those of each router and
// reflector; asked for, each node of the mesh has its own.
func TestSeriesAreBounded(t *testing.T) {
	nodes := []model.Node{{Name: "self", IPv4: prefixOf("10.0.255.1/16"), IPv6: prefixOf("fd00::ffff:1/64")}}
	for i := range 250 {
		n := model.Node{
			Name: model.NodeName(fmt.Sprintf("n%03d", i)), IPv4: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 16),
			IPv6: netip.PrefixFrom(addrOf(fmt.Sprintf("fd00::%x", i+1)), 64),
		}
		if i < 2 {
			n.RouteReflectorClusterID = "224.0.0.1"
		}
		nodes = append(nodes, n)
	}
	kinds := []model.PeerKind{"NodeMesh", "NodePeer", "GlobalPeer"}
	var peers []bgp.Peer
	var status []model.PeerStatus
	add := func(a netip.Addr, inCluster bool, kind model.PeerKind) {
		peers = append(peers, bgp.Peer{Address: a, InCluster: inCluster})
		byFamily := map[string]int{"ipv4": 1, "ipv6": 1}
		status = append(status, model.PeerStatus{
			Address: a, ASN: 64512, Kind: kind, State: "Active", LastReason: "other", Since: time.Unix(1, 0), BFDState: "Up",
			Received: byFamily, Accepted: byFamily, Sent: byFamily,
		})
	}
	for i := range nodes[1:] {
		n := &nodes[i+1]
		add(n.IPv4.Addr(), true, kinds[i%3])
		add(n.IPv6.Addr(), true, kinds[i%3])
	}
	add(addrOf("192.0.2.1"), false, "GlobalPeer")
	add(addrOf("2001:db8::1"), false, "NodePeer")
	refused := []RefusedCount{{Peer: peers[20].Address, Reason: "loop", Count: 2}, {Peer: peers[21].Address, Reason: "loop", Count: 3}}
	count := func(plain map[netip.Addr]bool) (total int, established, refusals []string) {
		reg := prometheus.NewRegistry()
		m := newMetrics(reg, func() reading { return reading{Status: Status{Peers: status, Refused: refused}, plain: plain} })
		for _, sink := range []string{"sysctl", "tunnel", "nft", "podlink", "route", "radv", "bgp", "policy"} {
			m.observe(sink, time.Now(), nil)
			m.observe(sink, time.Now(), os.ErrClosed)
		}
		for _, verb := range []string{"ADD", "DEL", "CHECK", "STATUS", "GC"} {
			m.observeCNI(verb, time.Second, 0)
		}
		m.observeCNI("ADD", time.Second, 11)
		return series(t, reg), labels(t, reg, "muslin_bgp_peer_established"), labels(t, reg, "muslin_bgp_refused_prefixes")
	}
	total, established, refusals := count(plainPeers(peers, nodes))
	if total >= 500 {
		t.Errorf("%d series", total)
	}
	if len(established) != 6 { // two reflectors and a router, by two families
		t.Errorf("series of their own have %q", established)
	}
	if want := []string{"peer=cluster reason=loop"}; !slices.Equal(refusals, want) {
		t.Errorf("refused: %q", refusals)
	}
	if _, established, _ = count(nil); len(established) != len(peers) {
		t.Errorf("asked for, %d of %d peers have series of their own", len(established), len(peers))
	}
}

// series counts all series, as Prometheus does.
func series(t *testing.T, reg *prometheus.Registry) int {
	t.Helper()
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	n := 0
	for line := range strings.Lines(w.Body.String()) {
		n += number(!strings.HasPrefix(line, "#"))
	}
	return n
}

// Sessions are counted by kind and state, and a state without any is 0.
func TestSessionsMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() reading {
		return reading{Status: Status{Peers: []model.PeerStatus{{Address: addrOf("192.0.2.1"), Kind: "NodeMesh", State: "Established"}}}, plain: map[netip.Addr]bool{addrOf("192.0.2.1"): true}}
	}})
	got := labels(t, reg, "muslin_bgp_sessions")
	if len(got) != 18 || !slices.Contains(got, "kind=GlobalPeer state=Established") {
		t.Errorf("got %q", got)
	}
	if own := labels(t, reg, "muslin_bgp_peer_established"); len(own) > 0 {
		t.Errorf("series of its own: %q", own)
	}
}

// News are timed from the first until a step that did not fail.
func TestConvergence(t *testing.T) {
	reg := prometheus.NewRegistry()
	m := newMetrics(reg, func() reading { return reading{} })
	at := func(s int64) time.Time { return m.began.Add(time.Duration(s) * time.Second) }
	m.carries(m.news.Swap(0), true, at(0)) // no news
	m.received(at(1))
	m.received(at(2))
	first := m.news.Swap(0)
	m.received(at(3)) // while the step works
	m.carries(first, false, at(4))
	m.carries(m.news.Swap(0), true, at(5))
	m.carries(m.news.Swap(0), true, at(6))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); f.GetName() == "muslin_convergence_seconds" && (h.GetSampleCount() != 1 || h.GetSampleSum() != 4) {
			t.Errorf("%d news, %v s", h.GetSampleCount(), h.GetSampleSum())
		}
	}
}

// What the kernel was told of policy is counted, and nothing while it is not known.
func TestPolicyMetrics(t *testing.T) {
	var p policyLoop
	if got := p.size(); got != (PolicySize{}) {
		t.Errorf("before the first Program: %+v", got)
	}
	p.last.Store(&policy.Program{
		Complete: true, Endpoints: map[string]policy.Endpoint{"a": {}, "b": {}}, Chains: model.SortedOf([]policy.Chain{{ID: "i-1"}}),
		Sets: model.SortedOf([]*policy.Set{
			{ID: "a-1", Addresses: model.SortedOf([]netip.Addr{{}, netip.IPv4Unspecified(), netip.IPv6Unspecified()})},
			{ID: "n-1", Nets: model.SortedOf([]policy.Range{{}, {Last: netip.IPv4Unspecified()}})}, {ID: "p-1", Ports: model.SortedOf([]policy.AddrPort{{}})},
		}),
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() reading {
		s := Status{Policy: p.size()}
		s.Policy.DeniedIngress, s.Policy.DeniedEgress = 3, 4
		return reading{Status: s}
	}})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if what, ok := strings.CutPrefix(f.GetName(), "muslin_policy_"); ok {
			for _, m := range f.GetMetric() {
				got[what] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
	}
	if want := map[string]float64{"chains": 1, "endpoints": 2, "sets": 3, "set_members": 6, "denied_total": 7}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The user guide's table of the agent has each metric that is collected, with its
// type and labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	reg := described{}
	newMetrics(reg, func() reading { return reading{} })
	guide, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(guide), "\nOf the agent, ")
	table, _, _ = strings.Cut(table, "\nOf the controller, ")
	documented := described{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (gauge|counter|histogram) \\| ([a-z, ]*)\\|").FindAllStringSubmatch(table, -1) {
		documented[m[1]] = strings.ReplaceAll(strings.TrimSpace(m[3]), " ", "")
		if strings.HasSuffix(m[1], "_total") != (m[2] == "counter") || m[2] == "histogram" && !strings.HasSuffix(m[1], "_seconds") {
			t.Errorf("%s is no %s", m[1], m[2])
		}
	}
	if !maps.Equal(reg, documented) {
		for name, labels := range reg {
			if text, ok := documented[name]; !ok || text != labels {
				t.Errorf("%s has labels %q; the guide says %q", name, labels, text)
			}
		}
		for name := range documented {
			if _, ok := reg[name]; !ok {
				t.Errorf("the guide speaks of %s", name)
			}
		}
	}
}

// described is a Registerer that keeps the labels of each metric by its name, but
// those of Go and of the process.
type described map[string]string

func (d described) Register(c prometheus.Collector) error {
	all := make(chan *prometheus.Desc, 1000)
	c.Describe(all)
	close(all)
	for one := range all {
		m := regexp.MustCompile(`^Desc\{fqName: "([^"]+)".*variableLabels: \{([^}]*)\}`).FindStringSubmatch(one.String())
		if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") {
			d[m[1]] = m[2]
		}
	}
	return nil
}

func (d described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		_ = d.Register(c)
	}
}

func (d described) Unregister(prometheus.Collector) bool { return false }

// labels lists the labels of a metric's series.
func labels(t *testing.T, reg *prometheus.Registry, name string) []string {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() == name {
			for _, m := range f.GetMetric() {
				var words []string
				for _, l := range m.GetLabel() {
					words = append(words, l.GetName()+"="+l.GetValue())
				}
				got = append(got, strings.Join(words, " "))
			}
		}
	}
	return got
}
