package model

import "net/netip"

// Host is the kernel of this node as far as routing needs it: links with their
// addresses, and the routes that others wrote.
type Host struct {
	Links []Link // sorted by Index
	// Routes of the main table that are not Muslin's and that a next hop may be
	// resolved through: connected ones and static ones (default gateway).
	Routes []HostRoute
}

// Link is a network interface.
type Link struct {
	Index     int
	Name      string
	Kind      string // veth, vxlan, ipip, bridge…; empty for hardware
	Alias     string
	Up        bool // administratively up and with carrier
	AdminUp   bool // administratively up: the kernel takes routes over it
	MTU       int  // bytes
	MAC       string
	VXLANPort int            // UDP, of a VXLAN device; 0 for every other link
	Addresses []netip.Prefix // address with the length of its subnet
}

// HostRoute is a route of somebody else's that can resolve a next hop.
type HostRoute struct {
	Prefix    netip.Prefix
	Gateways  []netip.Addr // empty: connected
	LinkIndex int
	Protocol  int
	Metric    int
}

// Endpoint is a pod's attachment to this node.
type Endpoint struct {
	// ContainerID is the sandbox, Interface the name inside the pod.
	ContainerID, Interface string
	Namespace, Pod         string
	HostInterface          string // cali…
	Addresses              []netip.Addr
	// SourcePrefixes may be used as source beside Addresses
	// (cni.projectcalico.org/allowedSourcePrefixes).
	SourcePrefixes []netip.Prefix
	// FloatingIPs lead to the pod's address of their family
	// (cni.projectcalico.org/floatingIPs).
	FloatingIPs []netip.Addr
	// WithoutIPAM is the CNI network that gave Addresses as the pod asks for them
	// (cni.projectcalico.org/ipAddrsNoIpam); empty: IPAM gave them.
	WithoutIPAM string
	MAC         string
	MTU         int // bytes, as the CNI configuration asks; 0: the node's, as it changes
}
