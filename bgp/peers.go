package bgp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/muslin-net/muslin/pkg/model"
)

// peers lists the node's sessions, one an address. Where several objects ask
// for the same address the first in this order wins, as in Calico: global
// BGPPeers, those of the node, reverse peerings, the mesh.
func (b *builder) peers() []Peer {
	if b.drain() == DrainWithdrawn {
		return nil
	}
	chosen := map[netip.Addr]Peer{}
	add := func(ps []Peer) {
		for _, p := range ps {
			b.choose(chosen, p)
		}
	}
	for _, global := range []bool{true, false} {
		for _, o := range b.snap.Peers {
			if global == isGlobal(o) {
				add(b.forward(o))
			}
		}
	}
	for _, o := range b.snap.Peers {
		add(b.reverse(o))
	}
	add(b.mesh())
	out := make([]Peer, 0, len(chosen))
	for _, p := range chosen {
		out = append(out, p)
	}
	slices.SortFunc(out, func(x, y Peer) int { return x.Address.Compare(y.Address) })
	b.fillFamilies(out)
	return out
}

// choose keeps the first peer of an address. Two explicit peerings of one
// address that differ in their port cannot both be had: sessions are told
// apart by address alone.
func (b *builder) choose(chosen map[netip.Addr]Peer, p Peer) {
	if p.Address == b.node.Address(model.IPv4) || p.Address == b.node.Address(model.IPv6) {
		return // a selector that takes in the node itself
	}
	have, ok := chosen[p.Address]
	if !ok {
		chosen[p.Address] = p
		return
	}
	if p.Kind != model.PeerMesh && have.Port != p.Port && have.Object != p.Object {
		b.problem(p.Object, "spec.peerIP", "PeerConflict",
			"%s has a session with %s on another port; one address can have one session", have.Object, p.Address)
	}
}

func isGlobal(o model.BGPPeer) bool { return o.Node == "" && o.NodeSelector == nil }

// applies reports whether a BGPPeer is configured on node n.
func applies(o model.BGPPeer, n model.Node) bool {
	switch {
	case o.NodeSelector != nil:
		return o.NodeSelector.Matches(n.Labels)
	case o.Node != "":
		return o.Node == n.Name
	}
	return true
}

func peerRef(o model.BGPPeer) model.Ref { return model.Ref{Kind: "BGPPeer", Name: o.Name} }

// forward makes the sessions of a BGPPeer that is configured on this node.
func (b *builder) forward(o model.BGPPeer) []Peer {
	if !applies(o, b.node) {
		return nil
	}
	kind := model.PeerNode
	if isGlobal(o) {
		kind = model.PeerGlobal
	}
	if o.HasLocalWorkloadPeering {
		return b.workloads(o, kind)
	}
	if !b.usable(o) {
		return nil
	}
	if o.PeerSelector != nil {
		var out []Peer
		for _, n := range b.snap.Nodes {
			if o.PeerSelector.Matches(n.Labels) && n.Name != b.node.Name {
				out = append(out, b.nodePeers(o, n, kind, 0)...)
			}
		}
		return out
	}
	p := Peer{Address: o.PeerIP.Unmap(), Port: o.PeerPort, ASN: o.ASN, Kind: kind, Object: peerRef(o)}
	if n, ok := b.nodeAt(p.Address); ok {
		b.asNode(&p, n)
	} else if isReflector(b.node) && clusterID(b.node).IsValid() {
		p.ReflectorClient = true // refined by settle: iBGP only
	}
	if p.ASN == 0 {
		p.ASN = b.asn
	}
	if !b.settle(o, &p) {
		return nil
	}
	return []Peer{p}
}

// usable checks what makes a BGPPeer meaningless, and says so.
func (b *builder) usable(o model.BGPPeer) bool {
	ref := peerRef(o)
	switch {
	case o.PeerSelector == nil && !o.PeerIP.IsValid():
		b.problem(ref, "spec.peerIP", "InvalidAddress", "neither a readable peerIP nor a peerSelector: nothing to peer with")
		return false
	case o.PeerSelector == nil && (o.PeerIP.IsUnspecified() || o.PeerIP.IsMulticast() || o.PeerIP.IsLoopback()):
		b.problem(ref, "spec.peerIP", "InvalidAddress", "%s cannot be the address of a peer", o.PeerIP)
		return false
	case o.PeerSelector == nil && o.PeerIP.IsLinkLocalUnicast() && o.PeerIP.Is6() && o.PeerIP.Zone() == "":
		b.problem(ref, "spec.peerIP", "InvalidAddress", "%s is link-local: say on which interface, as in %s%%eth0", o.PeerIP, o.PeerIP)
		return false
	case o.PeerSelector == nil && !linkLocal(o.PeerIP) && !b.node.Address(model.FamilyOf(o.PeerIP)).IsValid():
		b.problem(ref, "spec.peerIP", "NoAddress", "node %s has no %s address to reach %s from", b.node.Name, model.FamilyOf(o.PeerIP), o.PeerIP)
		return false
	case o.NodeSelector != nil && o.Node != "":
		b.problem(ref, "spec.node", "Conflict", "node and nodeSelector exclude each other; nodeSelector is used")
	}
	return true
}

// nodeAt finds another node by its address.
func (b *builder) nodeAt(a netip.Addr) (model.Node, bool) {
	for _, n := range b.snap.Nodes {
		if n.Name != b.node.Name && (n.IPv4.Addr() == a || n.IPv6.Addr() == a) {
			return n, true
		}
	}
	return model.Node{}, false
}

// nodePeers makes the sessions with another node that a BGPPeer asks for, one
// a family both have. family 0 means both.
func (b *builder) nodePeers(o model.BGPPeer, n model.Node, kind model.PeerKind, family model.Family) []Peer {
	var out []Peer
	for _, f := range model.Families {
		a := n.Address(f)
		if family != 0 && f != family || !a.IsValid() || !b.node.Address(f).IsValid() {
			continue
		}
		p := Peer{Address: a, Kind: kind, Object: peerRef(o), ASN: b.asnOf(n)}
		b.asNode(&p, n)
		if b.settle(o, &p) {
			out = append(out, p)
		}
	}
	return out
}

// asNode fills in what is known of a peer because it is a node of the cluster.
// One side of each pair waits, so that two connections never collide; which
// one is decided as Calico does, by comparing the addresses as strings.
func (b *builder) asNode(p *Peer, n model.Node) {
	p.InCluster = true
	if p.Port == 0 {
		p.Port = b.listenPort(n.Name)
	}
	p.Passive = p.Address.String() > b.node.Address(model.FamilyOf(p.Address)).String()
	own := clusterID(b.node)
	p.ReflectorClient = own.IsValid() && clusterID(n) != own
}

// settle applies the fields of a BGPPeer to a session. It returns false when
// the session must not be there for now.
func (b *builder) settle(o model.BGPPeer, p *Peer) bool {
	b.base(p)
	if o.LocalASN != 0 {
		p.LocalASN = o.LocalASN
	}
	if o.AnySource {
		p.LocalAddress = netip.Addr{}
	}
	if o.MaxRestartTime > 0 {
		p.RestartTime = b.restartTime(peerRef(o), "spec.maxRestartTime", o.MaxRestartTime)
	}
	b.annotations(o, p)
	if o.KeepaliveTime > 0 {
		p.Keepalive = o.KeepaliveTime
	}
	p.AllowedLocalASNs = clamp(o.NumAllowedLocalASNs, 0, 10)
	p.TTLSecurity = clamp(o.TTLSecurity, 0, 254)
	b.reachableBy(o, p)
	b.reflect(p)
	if o.Password != nil {
		if !o.Password.Known {
			b.problem(peerRef(o), "spec.password", "SecretMissing",
				"secret %s has no readable key %s; the peer is withheld until it has", o.Password.SecretName, o.Password.Key)
			return false
		}
		p.Password = o.Password.Value
	}
	return true
}

// base gives a session the defaults of this node.
func (b *builder) base(p *Peer) {
	if p.Port == 0 {
		p.Port = DefaultListenPort
	}
	p.LocalASN = b.asn
	if !linkLocal(p.Address) {
		p.LocalAddress = b.node.Address(model.FamilyOf(p.Address))
	}
	p.HoldTime, p.RestartTime = DefaultHoldTime, DefaultRestartTime
	p.Keepalive = p.HoldTime / 3
	p.PrefixLimit = p.usualPrefixLimit()
}

// reflect keeps reflection to where it has a meaning: iBGP (RFC 4456).
func (b *builder) reflect(p *Peer) {
	if p.ReflectorClient = p.ReflectorClient && !p.External(); p.ReflectorClient {
		p.ClusterID = clusterID(b.node)
	}
}

func (b *builder) reachableBy(o model.BGPPeer, p *Peer) {
	switch {
	case !o.ReachableBy.IsValid():
	case model.FamilyOf(o.ReachableBy) != model.FamilyOf(p.Address):
		b.problem(peerRef(o), "spec.reachableBy", "FamilyMismatch",
			"%s and the peer's address %s are of different families; reachableBy is ignored", o.ReachableBy, p.Address)
	default:
		p.ReachableBy = o.ReachableBy.Unmap()
	}
}

// restartTime keeps to the 12 bits of RFC 4724 section 3.
func (b *builder) restartTime(o model.Ref, field string, d time.Duration) time.Duration {
	const most = 4095 * time.Second
	d = d.Round(time.Second)
	if d > most || d < time.Second {
		b.problem(o, field, "OutOfRange", "%s is not within 1 s and 4095 s; the nearest of them is used", d)
	}
	return min(max(d, time.Second), most)
}

// fillFamilies decides what each session carries, where no annotation says it: the
// family of its address, and towards the outside also the node's other family. That
// another peer has an address of that family is no reason to leave it out: nothing
// tells whether both are one router. A router that has both families on both of its
// sessions gets the same routes twice.
func (b *builder) fillFamilies(ps []Peer) {
	for i := range ps {
		p := &ps[i]
		if len(p.Families) > 0 {
			continue
		}
		f := model.FamilyOf(p.Address)
		p.Families = []model.Family{f}
		if o := f.Other(); !p.InCluster && b.node.Address(o).IsValid() {
			p.Families = append(p.Families, o)
		}
	}
}

// linkLocal is an unnumbered peer: an IPv6 link-local address with its
// interface. Its session carries both families with link-local next hops
// (RFC 8950), so neither end needs an address of its own on the link.
func linkLocal(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() && a.Zone() != "" }

func clamp[T cmp.Ordered](v, lo, hi T) T { return min(max(v, lo), hi) }
