package compat

// policy are the kinds of policy.
var policy = []Kind{
	{Group: "networking.k8s.io", Name: "NetworkPolicy", Fields: each(effect, "podSelector ingress egress policyTypes")},
	{Group: policyGroup, Name: "ClusterNetworkPolicy", Fields: join(
		each(effect, `tier priority subject ingress egress.name egress.action egress.protocols
			egress.to.namespaces egress.to.pods egress.to.nodes egress.to.networks`),
		map[string]Field{"egress.to.domainNames": without("nothing follows the addresses of names, and the rule is closed: name networks")})},
	{Group: policyGroup, Name: "AdminNetworkPolicy", Why: older},
	{Group: policyGroup, Name: "BaselineAdminNetworkPolicy", Why: older},
	{Group: calicoGroup, Name: "NetworkPolicy", Fields: join(rules, each(effect, "tier order selector types serviceAccountSelector"),
		map[string]Field{"performanceHints": without(noHints)})},
	{Group: calicoGroup, Name: "GlobalNetworkPolicy", Fields: join(rules,
		each(effect, "tier order selector types serviceAccountSelector namespaceSelector doNotTrack preDNAT applyOnForward"),
		map[string]Field{"performanceHints": without(noHints)})},
	{Group: calicoGroup, Name: "HostEndpoint", Fields: join(each(effect, "node interfaceName expectedIPs profiles"),
		map[string]Field{"ports": without("rules that name a port do not look at those of host endpoints: write numbers there")})},
	{Group: calicoGroup, Name: "NetworkSet", Fields: each(effect, "nets")},
	{Group: calicoGroup, Name: "GlobalNetworkSet", Fields: each(effect, "nets")},
	{Group: calicoGroup, Name: "Tier", Fields: each(effect, "order defaultAction")},
}

// rules are the fields of ingress and egress rules.
var rules = func() map[string]Field {
	out := map[string]Field{}
	for _, direction := range []string{"ingress.", "egress."} {
		for _, f := range []string{"action", "ipVersion", "protocol", "icmp", "notProtocol", "notICMP", "source", "destination", "metadata"} {
			out[direction+f] = effect
		}
		out[direction+"http"] = without("there is no application layer policy")
	}
	return out
}()

const (
	policyGroup = "policy.networking.k8s.io"
	noHints     = "rules of a policy are on the nodes that have its pods"
	older       = "it is of an older version of the API: write a ClusterNetworkPolicy"
)
