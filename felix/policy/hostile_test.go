package policy_test

import (
	"strings"
	"testing"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	networking "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

// FuzzHostileSpecs reads specs of any kind, whatever the API server let through:
// nothing panics, and a default-deny of the other API still stands in the way.
func FuzzHostileSpecs(f *testing.F) {
	for _, spec := range []string{
		`{}`, `null`, `[]`, `{"order": 1e308, "tier": ""}`, `{"selector": "` + strings.Repeat("(", 5000) + `"}`,
		`{"selector": "all()", "types": ["Ingress", "Egress"], "ingress": [{"action": "Allow", "protocol": "TCP", "destination": {"ports": [1, "2:3", "x"]}}]}`,
		`{"ingress": [{"action": "Deny", "source": {"nets": ["0.0.0.0/0", "::/0", "::ffff:10.0.0.0/104", "::ffff:0:0/90"], "notNets": ["10.0.0.0/8"]}}]}`,
		`{"egress": [{"action": "Pass", "icmp": {"type": 8}, "protocol": 1}, {"action": "Log", "notICMP": {"type": 1, "code": 1}, "protocol": 58}]}`,
		`{"podSelector": {"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["b"]}]}, "policyTypes": ["Egress"]}`,
		`{"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0", "except": ["10.0.0.0/8", "fe80::/10"]}}], "ports": [{"port": 1, "endPort": 65535}]}]}`,
		`{"nets": ["10.0.0.0/8", "10.0.0.0/9", "::", "x", "1.2.3.4/0"], "defaultAction": "Pass", "order": -5}`,
		`{"tier": "Admin", "priority": -1, "subject": {"namespaces": {}}, "ingress": [{"action": "Accept", "from": [{}]}], "egress": [null, {"action": "Pass", "to": [{"networks": ["::/0", "0.0.0.0/0"]}]}]}`,
	} {
		f.Add([]byte(spec))
	}
	f.Fuzz(func(t *testing.T, spec []byte) {
		if json, err := yaml.YAMLToJSON(spec); err == nil {
			spec = json
		}
		in := policy.Input{EndpointsSynced: true, Endpoints: []model.Endpoint{{Namespace: "n", Pod: "p", HostInterface: "cali1"}}}
		in.View = model.PolicyView{Synced: true, Namespaces: map[string]map[string]string{"n": nil}, Pods: model.SortedOf([]*model.PolicyPod{{Namespace: "n", Name: "p"}})}
		for _, ref := range []model.Ref{{Kind: model.KindPolicy, Namespace: "n", Name: "a"}, {Kind: model.KindGlobalPolicy, Name: "b"}} {
			if p, _, ok := netpol.Calico(ref, spec); ok {
				in.View.Policies = in.View.Policies.With([]*model.Policy{&p}, nil)
			}
		}
		if p, _, ok := netpol.Cluster("c", spec); ok {
			in.View.Policies = in.View.Policies.With([]*model.Policy{&p}, nil)
		}
		var k networking.NetworkPolicy
		k.Namespace, k.Name = "n", "k"
		if yaml.Unmarshal(spec, &k.Spec) == nil {
			if p, _, ok := netpol.Kubernetes(&k); ok {
				in.View.Policies = in.View.Policies.With([]*model.Policy{&p}, nil)
			}
		}
		if s, _, ok := netpol.NetworkSet(model.Ref{Kind: "GlobalNetworkSet", Name: "s"}, nil, spec); ok {
			in.View.NetworkSets = append(in.View.NetworkSets, s)
		}
		if tier, _, ok := netpol.Tier("t", spec); ok {
			in.View.Tiers = append(in.View.Tiers, tier)
		}
		deny := model.Policy{Object: model.Ref{Kind: "GlobalNetworkPolicy", Name: "first"}, Tier: model.AdminTier, Ingress: true, Egress: true}
		rule := []model.PolicyRule{{Action: model.PolicyDeny}}
		deny.IngressRules, deny.EgressRules = rule, rule
		others := in.View.Policies
		in.View.Policies = others.With([]*model.Policy{&deny}, nil)
		for _, tier := range in.View.Tiers {
			if tier.Order < model.AdminTierOrder {
				return // it is asked before the one that denies
			}
		}
		for p := range others.All() {
			if p.Tier == model.AdminTier {
				return
			}
		}
		program, _ := policy.Compile(in)
		for _, id := range []policy.ChainID{program.Endpoints["cali1"].Ingress, program.Endpoints["cali1"].Egress} {
			if c := program.Chain(id); len(c.Rules) != 1 || c.Rules[0].Verdict != policy.Deny {
				t.Errorf("not closed: %s", program)
			}
		}
		_ = program.String()
	})
}
