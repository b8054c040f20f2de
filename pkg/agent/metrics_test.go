package agent

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/bgp/gobgp"
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
