package bgp

import "github.com/muslin-net/muslin/pkg/model"

// reverse makes this node's side of a BGPPeer that is configured on other
// nodes and whose remote end is this node, unless reversePeering is Manual.
// Calico does the same, so one object is enough for a reflector and its
// clients.
func (b *builder) reverse(o model.BGPPeer) []Peer {
	family, ok := b.isRemoteEnd(o)
	if !ok || o.NoReverse || o.HasLocalWorkloadPeering {
		return nil
	}
	var out []Peer
	for _, n := range b.snap.Nodes {
		if n.Name != b.node.Name && applies(o, n) {
			out = append(out, b.nodePeers(o, n, model.PeerNode, family)...)
		}
	}
	return out
}

// isRemoteEnd reports whether this node is what o wants to peer with, and over
// which family (0: both).
func (b *builder) isRemoteEnd(o model.BGPPeer) (model.Family, bool) {
	if o.PeerSelector != nil {
		return 0, o.PeerSelector.Matches(b.node.Labels)
	}
	if !o.PeerIP.IsValid() {
		return 0, false
	}
	f := model.FamilyOf(o.PeerIP)
	asn := o.ASN
	if asn == 0 {
		asn = b.asnOf(model.Node{})
	}
	port := o.PeerPort == 0 || o.PeerPort == b.listenPort(b.node.Name)
	return f, o.PeerIP.Unmap() == b.node.Address(f) && asn == b.asn && port
}
