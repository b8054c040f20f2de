package compat

// policyEnforced says whether Muslin enforces policy. While it is false no object
// of these kinds has an effect; once it is true the fields decide.
const policyEnforced = false

// policy are the kinds of policy, with the fields that have no effect even where
// policy is enforced.
var policy = func() []Kind {
	list := []Kind{
		{Group: "networking.k8s.io", Name: "NetworkPolicy", Fields: each(effect, "podSelector ingress egress policyTypes")},
		{Group: calicoGroup, Name: "NetworkPolicy", Fields: join(rules, each(effect, "tier order selector types serviceAccountSelector"),
			map[string]Field{"performanceHints": without(noHints)})},
		{Group: calicoGroup, Name: "GlobalNetworkPolicy", Fields: join(rules,
			each(effect, "tier order selector types serviceAccountSelector namespaceSelector"),
			map[string]Field{
				"performanceHints": without(noHints),
				"doNotTrack":       without(hostEndpoints, "false"),
				"preDNAT":          without(hostEndpoints, "false"),
				"applyOnForward":   without(hostEndpoints, "false"),
			})},
		{Group: calicoGroup, Name: "NetworkSet", Fields: each(effect, "nets")},
		{Group: calicoGroup, Name: "GlobalNetworkSet", Fields: each(effect, "nets")},
		{Group: calicoGroup, Name: "Tier", Fields: each(effect, "order defaultAction")},
	}
	for i := range list {
		if !policyEnforced {
			list[i].Why = "nothing enforces policy yet: run a policy engine beside it"
		}
	}
	return list
}()

// rules are the fields of ingress and egress rules.
var rules = func() map[string]Field {
	out := map[string]Field{}
	for _, way := range []string{"ingress.", "egress."} {
		for _, f := range []string{"action", "ipVersion", "protocol", "icmp", "notProtocol", "notICMP", "source", "destination", "metadata"} {
			out[way+f] = effect
		}
		out[way+"http"] = without("there is no application layer policy")
	}
	return out
}()

const noHints = "rules of a policy are on the nodes that have its pods"
