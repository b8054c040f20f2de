package bgp

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// AsksForWorkloads reports whether any BGPPeer is with pods, so that Desired
// depends on the pods of the node.
func AsksForWorkloads(snap model.Snapshot) bool {
	for _, o := range snap.Peers {
		if o.HasLocalWorkloadPeering {
			return true
		}
	}
	return false
}

// IsPod reports a session with a pod of this node.
func (p Peer) IsPod() bool { return p.Pod != model.Ref{} }

// workloads makes the sessions with pods of this node that a BGPPeer asks for,
// one an address (Calico localWorkloadSelector). The node speaks from the
// address that the BGPConfiguration gives its end of all pods' links.
func (b *builder) workloads(o model.BGPPeer, kind model.PeerKind) []Peer {
	var out []Peer
	for _, w := range b.snap.Workloads {
		if o.LocalWorkloadSelector == nil || !o.LocalWorkloadSelector.Matches(w.Labels) {
			continue
		}
		ref := model.Ref{Kind: "Pod", Namespace: w.Namespace, Name: w.Pod}
		reached := false
		for _, a := range w.Addresses {
			f := model.FamilyOf(a)
			own := b.peeringAddress(f)
			if !own.IsValid() || !b.node.Address(f).IsValid() {
				continue
			}
			if own.Is6() && own.IsLinkLocalUnicast() {
				b.problem(model.Ref{Kind: "BGPConfiguration", Name: "default"}, "spec.localWorkloadPeeringIPV6", "Unsupported",
					"%s is link-local, which a session with a pod cannot be from", own)
				continue
			}
			reached = true
			p := Peer{Address: a, Kind: kind, Object: peerRef(o), Pod: ref, ASN: o.ASN, Families: []model.Family{f}}
			if b.settle(o, &p) {
				p.LocalAddress, p.ReachableBy = own, netip.Addr{}
				out = append(out, p)
			}
		}
		if !reached {
			b.problem(peerRef(o), "spec.localWorkloadSelector", "NoPeeringAddress",
				"pod %s/%s on node %s has no session: the BGPConfiguration \"default\" has no localWorkloadPeeringIPV4 or IPV6 of a family that the pod has",
				w.Namespace, w.Pod, b.node.Name)
		}
	}
	return out
}

// peeringAddress is the node's end of its pods' links in a family.
func (b *builder) peeringAddress(f model.Family) netip.Addr {
	return model.OfFamily(f, b.defaults.LocalWorkloadPeerIPv4.Unmap(), b.defaults.LocalWorkloadPeerIPv6)
}

// podRules come before the filters of a session with a pod: whoever may set the
// labels of a pod must not be able to take traffic of others. Neither the nodes'
// networks nor pools that addresses come from nor services are a pod's to
// announce. (A pool that is disabled may be: it is how a cluster inside the pods
// is kept from being masqueraded.)
func (b *builder) podRules(p Peer) []Rule {
	if !p.IsPod() {
		return nil
	}
	out := []Rule{{From: "networks of nodes, from a pod", Match: Match{Prefixes: b.nodeNetworks()}, Action: Reject}}
	if r := b.poolRanges(func(q model.Pool) bool { return !q.Disabled }); len(r) > 0 {
		out = append(out, Rule{From: "pools, from a pod", Match: Match{Prefixes: r}, Action: Reject})
	}
	var services []PrefixRange
	for _, s := range b.serviceRanges() {
		services = append(services, Inside(s))
	}
	if len(services) > 0 {
		out = append(out, Rule{From: "services, from a pod", Match: Match{Prefixes: services}, Action: Reject})
	}
	return out
}

// nodeNetworks are what the nodes' own addresses lie in, sorted.
func (b *builder) nodeNetworks() []PrefixRange {
	var nets []netip.Prefix
	for _, n := range b.snap.Nodes {
		for _, p := range n.Subnets() {
			nets = append(nets, p.Masked())
		}
	}
	slices.SortFunc(nets, netip.Prefix.Compare)
	var out []PrefixRange
	for _, p := range slices.Compact(nets) {
		out = append(out, Inside(p))
	}
	return out
}

// onlyFromItself has a session with a pod accept nothing but routes to the pod
// itself, and a default route only where a filter accepts it.
func onlyFromItself(p Peer, rules []Rule) []Rule {
	if !p.IsPod() {
		return rules
	}
	itself := []netip.Addr{p.Address}
	for i := range rules {
		if rules[i].Action == Accept {
			rules[i].Match.NextHops = itself
		}
	}
	anywhere := []PrefixRange{{netip.PrefixFrom(netip.IPv4Unspecified(), 0), 0, 0}, {netip.PrefixFrom(netip.IPv6Unspecified(), 0), 0, 0}}
	noDefault := Rule{From: "default route, from a pod", Match: Match{Prefixes: anywhere}, Action: Reject}
	rules = slices.Insert(rules, len(rules)-1, noDefault) // before the last, which accepts all
	return append(rules, Rule{From: "next hop is not the pod", Action: Reject})
}
