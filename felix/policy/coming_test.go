package policy

import (
	"testing"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
)

// TestComing: the chain of a pod of this node is there before the pod has an endpoint, and after, as
// long as it may have one again; it is nobody's then. That of a pod elsewhere, or that has finished, is not.
func TestComing(t *testing.T) {
	in := Input{Self: "here", EndpointsSynced: true}
	in.View = model.PolicyView{Synced: true, Revision: 1, Namespaces: map[string]map[string]string{"ns": {}}}
	in.View.Policies = model.SortedOf([]*model.Policy{{
		Object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: "ns", Name: "p"}, Tier: model.DefaultTier, Order: model.KubernetesPolicyOrder,
		Selector: selector.Equal("app", "web"), Ingress: true,
	}})
	pod := func(node model.NodeName, app string) model.PolicyPod {
		return model.PolicyPod{Namespace: "ns", Name: "web", Node: node, Labels: map[string]string{"app": app}}
	}
	finished, ofHost := pod("here", "web"), pod("here", "web")
	finished.Finished, ofHost.HostNetwork = true, true
	end := []model.Endpoint{{Namespace: "ns", Pod: "web", HostInterface: "cali0"}}
	var engine Engine
	for i, step := range []struct {
		pod    model.PolicyPod
		ends   []model.Endpoint
		chains int
	}{
		{pod("there", "web"), nil, 0},
		{pod("here", "web"), nil, 1},
		{pod("here", "web"), end, 1},
		{pod("here", "web"), nil, 1},
		{pod("here", "other"), nil, 0},
		{pod("here", "web"), nil, 1},
		{finished, nil, 0},
		{pod("here", "web"), nil, 1},
		{ofHost, nil, 0},
	} {
		in.View.Pods, in.Endpoints = in.View.Pods.With([]*model.PolicyPod{&step.pod}, nil), step.ends
		got, _ := engine.Compile(in)
		if got.Chains.Len() != step.chains || len(got.Endpoints) != len(step.ends) {
			t.Errorf("step %d: want %d chains:\n%s", i, step.chains, got)
		}
		if whole, _ := Compile(in); whole.String() != got.String() {
			t.Errorf("step %d: %s\nmade at once: %s", i, got, whole)
		}
	}
	in.View.Pods = model.Sorted[*model.PolicyPod]{}
	if got, _ := engine.Compile(in); got.Chains.Len() > 0 {
		t.Errorf("a pod that is gone has a chain:\n%s", got)
	}
}
