package agent

import (
	"maps"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/gobgp"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/prometheus/client_golang/prometheus"
)

// A session that is down is counted by its reason; one that is up is not,
// whatever ended the one before.
func TestPeerErrorMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() Status {
		return Status{Peers: []model.PeerStatus{
			{Address: addrOf("192.0.2.1"), ASN: 65001, Kind: "GlobalPeer", State: "Active", LastReason: "connection-refused"},
			{Address: addrOf("192.0.2.2"), ASN: 65001, Kind: "GlobalPeer", State: "Established", LastReason: "hold-timer-expired"},
		}}
	}})
	got := labels(t, reg, "muslin_bgp_peer_error")
	if want := "asn=65001 kind=GlobalPeer peer=192.0.2.1 reason=connection-refused"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What is scraped tells a node with the patched GoBGP from one without.
func TestBuildInfoMetric(t *testing.T) {
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() Status { return Status{Version: "v9.9.9"} }})
	got := labels(t, reg, "muslin_build_info")
	if want := "gobgp=" + gobgp.Release() + " version=v9.9.9"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What the kernel was told of policy is counted, and nothing while it is not known.
func TestPolicyMetrics(t *testing.T) {
	var p policing
	if got := p.size(); got != (PolicySize{}) {
		t.Errorf("before the first Program: %+v", got)
	}
	p.last.Store(&policy.Program{
		Complete: true, Endpoints: map[string]policy.Endpoint{"a": {}, "b": {}}, Chains: map[policy.ChainID]policy.Chain{"i-1": {}},
		Sets: map[policy.SetID]policy.Set{"a-1": {Addresses: make([]netip.Addr, 3)}, "n-1": {Nets: make([]policy.Range, 2)}, "p-1": {Ports: make([]policy.AddrPort, 1)}},
	})
	reg := prometheus.NewRegistry()
	reg.MustRegister(statusCollector{func() Status { return Status{Policy: p.size()} }})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		if what, ok := strings.CutPrefix(f.GetName(), "muslin_policy_"); ok {
			got[what] = f.GetMetric()[0].GetGauge().GetValue()
		}
	}
	if want := map[string]float64{"chains": 1, "endpoints": 2, "sets": 3, "set_members": 6}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Every metric that is collected is in the table of the user guide.
func TestMetricsAreDocumented(t *testing.T) {
	guide, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	reg := make(chan *prometheus.Desc, 100)
	statusCollector{}.Describe(reg)
	m := newMetrics(prometheus.NewRegistry(), func() Status { return Status{} })
	m.applies.Describe(reg)
	m.duration.Describe(reg)
	m.cni.Describe(reg)
	close(reg)
	for d := range reg {
		name := strings.Split(d.String(), `"`)[1]
		if !regexp.MustCompile("`" + name + "[`{]").Match(guide) {
			t.Errorf("docs/operations.md does not speak of %s", name)
		}
	}
}

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
