package netpol

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ClusterPolicySpec is the spec of a ClusterNetworkPolicy of
// policy.networking.k8s.io, of which v1beta1 and v1alpha2 are the same. A policy
// without rules of a direction leaves that alone.
type ClusterPolicySpec struct {
	Tier     string               `json:"tier"`     // Admin, Baseline
	Priority int32                `json:"priority"` // 0 to 1000; the lowest is looked at first
	Subject  ClusterPods          `json:"subject"`
	Ingress  []ClusterIngressRule `json:"ingress"`
	Egress   []ClusterEgressRule  `json:"egress"`
}

// ClusterPods are pods, never those in the host's network. One field is set.
type ClusterPods struct {
	Namespaces *metav1.LabelSelector `json:"namespaces"`
	Pods       *NamespacedPods       `json:"pods"`
}

// NamespacedPods are the pods that both selectors select.
type NamespacedPods struct {
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       metav1.LabelSelector `json:"podSelector"`
}

// ClusterIngressRule is about what comes from any of From.
type ClusterIngressRule struct {
	ClusterRule `json:",inline"`
	From        []ClusterPods `json:"from"`
}

// ClusterEgressRule is about what goes to any of To.
type ClusterEgressRule struct {
	ClusterRule `json:",inline"`
	To          []ClusterEgressPeer `json:"to"`
}

// ClusterRule is what rules of both directions have. Without Protocols it is about
// all traffic.
type ClusterRule struct {
	Name      string            `json:"name"`
	Action    string            `json:"action"` // Accept, Deny, Pass
	Protocols []ClusterProtocol `json:"protocols"`
}

// ClusterEgressPeer is where traffic goes. One field is set.
type ClusterEgressPeer struct {
	ClusterPods `json:",inline"`
	Nodes       *metav1.LabelSelector `json:"nodes"`
	Networks    []string              `json:"networks"`    // CIDRs
	DomainNames []string              `json:"domainNames"` // nothing here knows their addresses
}

// ClusterProtocol is a protocol with destination ports. One field is set.
type ClusterProtocol struct {
	TCP                  *ClusterPorts `json:"tcp"`
	UDP                  *ClusterPorts `json:"udp"`
	SCTP                 *ClusterPorts `json:"sctp"`
	DestinationNamedPort string        `json:"destinationNamedPort"` // of any protocol
}

// ClusterPorts are ports of a protocol.
type ClusterPorts struct {
	DestinationPort *ClusterPort `json:"destinationPort"`
}

// ClusterPort is a port or a range of them. One field is set.
type ClusterPort struct {
	Number int32             `json:"number"` // 1 to 65535
	Range  *ClusterPortRange `json:"range"`
}

// ClusterPortRange is a range of ports, both included.
type ClusterPortRange struct {
	Start int32 `json:"start"`
	End   int32 `json:"end"`
}
