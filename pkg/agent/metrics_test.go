package agent

import (
	"strings"
	"testing"

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
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range families {
		if f.GetName() == "muslin_bgp_peer_error" {
			for _, m := range f.GetMetric() {
				var words []string
				for _, l := range m.GetLabel() {
					words = append(words, l.GetName()+"="+l.GetValue())
				}
				got = append(got, strings.Join(words, " "))
			}
		}
	}
	if want := "asn=65001 kind=GlobalPeer peer=192.0.2.1 reason=connection-refused"; len(got) != 1 || got[0] != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
