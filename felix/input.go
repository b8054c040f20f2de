package felix

import (
	"net/netip"

	"github.com/muslin-net/muslin/pkg/model"
)

// Input is everything that Desired looks at. All of it is read only.
type Input struct {
	// Self names the node that the State is for.
	Self model.NodeName
	// Snapshot is the cluster as this node knows it.
	Snapshot model.Snapshot
	// Learned are the prefixes that BGP has chosen, sorted by prefix (an
	// unsorted slice is accepted and costs a sort).
	Learned []model.Learned
	// LearnedSynced is true once BGP has heard what its peers had to say, or
	// has given up waiting for them.
	LearnedSynced bool
	// Host is the node's kernel. HostSynced is true once it was read.
	Host       model.Host
	HostSynced bool
	// Endpoints are the pods of this node. EndpointsSynced is true once the
	// ones that live in the kernel are among them.
	Endpoints       []model.Endpoint
	EndpointsSynced bool
	// OwnTunnels are this node's tunnel addresses. A zero field means: what
	// the node's object says.
	OwnTunnels TunnelAddresses
	// PeerRoutes lead to BGP peers that no other route leads to.
	PeerRoutes []PeerRoute
	// Unnumbered are the names of links with routers that BGP is spoken with by
	// their link-local addresses.
	Unnumbered []string
	// Speakers are pods of this node that BGP is spoken with.
	Speakers []Speaker
}

// Speaker is an address of a pod that speaks BGP with the node, and the node's
// address of the session, which the node's end of the pod's link is to have
// (Calico localWorkloadPeeringIPV4, localWorkloadPeeringIPV6).
type Speaker struct{ Pod, Node netip.Addr }

// TunnelAddresses are a node's addresses on its tunnel devices.
type TunnelAddresses struct{ IPIP, VXLAN, VXLANV6 netip.Addr }

// ReadyTunnels returns those of own whose device is up and has the address.
// Only these may be written to the node's object: the other nodes send through
// a tunnel as soon as they find its address there.
func ReadyTunnels(own TunnelAddresses, host model.Host) TunnelAddresses {
	var out TunnelAddresses
	for _, l := range host.Links {
		for _, p := range l.Addresses {
			switch {
			case !l.AdminUp:
			case l.Name == IPIPDevice && p.Addr() == own.IPIP:
				out.IPIP = own.IPIP
			case (l.Name == VXLANDevice || l.Name == NextDevice(VXLANDevice)) && p.Addr() == own.VXLAN:
				out.VXLAN = own.VXLAN
			case (l.Name == VXLANDeviceV6 || l.Name == NextDevice(VXLANDeviceV6)) && p.Addr() == own.VXLANV6:
				out.VXLANV6 = own.VXLANV6
			}
		}
	}
	return out
}
