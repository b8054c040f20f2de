package app

import (
	"slices"
	"testing"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// TestBGPIsNeverCut: the port that this node listens on, and those of its peers, are
// failsafe ports whatever a FelixConfiguration says.
func TestBGPIsNeverCut(t *testing.T) {
	ssh, listen, far := model.FailsafePort{Protocol: 6, Port: 22}, model.FailsafePort{Protocol: 6, Port: 1179}, model.FailsafePort{Protocol: 6, Port: 2179}
	c := bgp.Config{ListenPort: 1179, Peers: []bgp.Peer{{Port: 2179}, {Port: 2179}, {Port: 179}}}
	given := []model.FailsafePort{ssh}
	in, out := withBGP(c, given, nil)
	if want := []model.FailsafePort{ssh, listen}; !slices.Equal(in, want) || len(given) != 1 {
		t.Errorf("in: %v, want %v", in, want)
	}
	if want := []model.FailsafePort{far, {Protocol: 6, Port: 179}}; !slices.Equal(out, want) {
		t.Errorf("out: %v, want %v", out, want)
	}
}

func TestAPIServerPort(t *testing.T) {
	for host, want := range map[string]uint16{
		"https://10.0.0.1": 443, "https://[fd00::1]:7443": 7443, "https://api.example:6443/path": 6443, "10.0.0.1:8443": 8443,
	} {
		if got, err := apiServerPort(host); err != nil || got.Port != want || got.Protocol != 6 {
			t.Errorf("%s: %v, %v, want port %d", host, got, err, want)
		}
	}
}

func TestEpochMask(t *testing.T) {
	for want, all := range map[uint32][]model.FelixConfiguration{
		0:                       {{Name: "default", EpochMask: 0xff}},
		policy.DefaultEpochMask: {{Name: "default", Established: model.ActionReevaluate}},
		0xff00:                  {{Name: "default", Established: model.ActionReevaluate}, {Name: "node.n1", EpochMask: 0xff00}},
	} {
		if got := epochMask(all, "n1"); got != want {
			t.Errorf("%+v: %#x, want %#x", all, got, want)
		}
	}
}
