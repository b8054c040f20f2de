package policy

import (
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
)

// TestUnknown: a pod that is not known yet is closed from the first policy on, even
// if that selects nobody here; without any policy it is open.
func TestUnknown(t *testing.T) {
	for policies, want := range []bool{false, true} {
		in := Input{Self: "n1", EndpointsSynced: true, Endpoints: []model.Endpoint{{Namespace: "ns", Pod: "new", HostInterface: "cali0"}}}
		in.View.Synced = true
		in.View.Policies = model.SortedOf([]*model.Policy{{}}[:policies])
		p, _ := new(Engine).Compile(in)
		if _, open := p.Endpoints["cali0"]; !p.Complete || p.Unknown != want || p.Closed != want || open == want {
			t.Errorf("%d policies: %+v", policies, p)
		}
		in.Endpoints = nil
		if p, _ := new(Engine).Compile(in); p.Closed != want {
			t.Errorf("%d policies: open to pods that come: %t, want %t", policies, !p.Closed, !want)
		}
	}
}
