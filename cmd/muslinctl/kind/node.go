package kind

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Node is Calico's Node as far as Muslin uses it. It is stored on the Kubernetes
// node, in labels and in annotations that begin with projectcalico.org/.
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              NodeSpec `json:"spec"`
}

// NodeSpec has the fields that calicoctl shows.
type NodeSpec struct {
	BGP              *NodeBGP      `json:"bgp,omitempty"`
	IPv4VXLANTunnel  string        `json:"ipv4VXLANTunnelAddr,omitempty"`
	IPv6VXLANTunnel  string        `json:"ipv6VXLANTunnelAddr,omitempty"`
	VXLANTunnelMAC   string        `json:"vxlanTunnelMACAddr,omitempty"`
	VXLANTunnelMACV6 string        `json:"vxlanTunnelMACAddrV6,omitempty"`
	Addresses        []NodeAddress `json:"addresses,omitempty"`
	OrchRefs         []NodeOrchRef `json:"orchRefs,omitempty"`
	Wireguard        any           `json:"wireguard,omitempty"`
	Interfaces       any           `json:"interfaces,omitempty"`
}

// NodeBGP is a node's part in BGP.
type NodeBGP struct {
	ASNumber                *uint32 `json:"asNumber,omitempty"`
	IPv4Address             string  `json:"ipv4Address,omitempty"`
	IPv6Address             string  `json:"ipv6Address,omitempty"`
	IPv4IPIPTunnelAddr      string  `json:"ipv4IPIPTunnelAddr,omitempty"`
	RouteReflectorClusterID string  `json:"routeReflectorClusterID,omitempty"`
}

// NodeAddress is an address and what it is for.
type NodeAddress struct {
	Address string `json:"address"`
	Type    string `json:"type,omitempty"`
}

// NodeOrchRef ties the node to its orchestrator.
type NodeOrchRef struct {
	NodeName     string `json:"nodeName,omitempty"`
	Orchestrator string `json:"orchestrator"`
}

// Annotations of the Kubernetes node that hold Calico's fields, by the path of
// the field.
var nodeAnnotations = []struct{ path, key string }{
	{"bgp.asNumber", "projectcalico.org/ASNumber"},
	{"bgp.ipv4Address", "projectcalico.org/IPv4Address"},
	{"bgp.ipv6Address", "projectcalico.org/IPv6Address"},
	{"bgp.ipv4IPIPTunnelAddr", "projectcalico.org/IPv4IPIPTunnelAddr"},
	{"bgp.routeReflectorClusterID", "projectcalico.org/RouteReflectorClusterID"},
	{"ipv4VXLANTunnelAddr", "projectcalico.org/IPv4VXLANTunnelAddr"},
	{"ipv6VXLANTunnelAddr", "projectcalico.org/IPv6VXLANTunnelAddr"},
	{"vxlanTunnelMACAddr", "projectcalico.org/VXLANTunnelMACAddr"},
	{"vxlanTunnelMACAddrV6", "projectcalico.org/VXLANTunnelMACAddrV6"},
}
