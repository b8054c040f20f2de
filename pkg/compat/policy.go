package compat

// policy are the kinds of policy.
var policy = []Kind{
	{Group: "networking.k8s.io", Name: "NetworkPolicy", Fields: join(each(effect, "podSelector policyTypes"),
		below("ingress egress", each(effect, "ports.port ports.endPort ports.protocol")),
		below("ingress.from egress.to", each(effect, "podSelector namespaceSelector ipBlock.cidr ipBlock.except")))},
	{Group: policyGroup, Name: "ClusterNetworkPolicy", Fields: join(each(effect, "tier priority egress.to.nodes egress.to.networks"),
		below("subject ingress.from egress.to", each(effect, "namespaces pods.namespaceSelector pods.podSelector")),
		below("ingress egress", each(effect, "name action protocols.destinationNamedPort")),
		below("ingress.protocols egress.protocols", below("tcp udp sctp", below("destinationPort", each(effect, "number range.start range.end")))),
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
var rules = below("ingress egress", join(
	each(effect, "action ipVersion protocol notProtocol icmp.type icmp.code notICMP.type notICMP.code"),
	below("source destination", each(effect, `nets notNets selector notSelector namespaceSelector ports notPorts serviceAccounts.names
		serviceAccounts.selector services.name services.namespace`)),
	map[string]Field{
		"http":                 without("there is no application layer policy"),
		"metadata.annotations": without("rules of the kernel bear no comments"),
	}))

const (
	policyGroup = "policy.networking.k8s.io"
	noHints     = "rules of a policy are on the nodes that have its pods"
	older       = "it is of an older version of the API: write a ClusterNetworkPolicy"
)
