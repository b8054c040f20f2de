package kube

import (
	"net/netip"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
)

func readPeer(obj any) reading[model.BGPPeer] {
	o := obj.(*object)
	r := newReader("BGPPeer", &o.ObjectMeta)
	var spec v3.BGPPeerSpec
	r.spec(o, &spec)
	out := model.BGPPeer{
		Name: o.Name, Node: model.NodeName(spec.Node),
		NodeSelector:        r.selector("spec.nodeSelector", spec.NodeSelector),
		PeerSelector:        r.selector("spec.peerSelector", spec.PeerSelector),
		ASN:                 model.ASN(spec.ASNumber),
		LocalASN:            model.ASN(deref(spec.LocalASNumber)),
		NextHopMode:         oneOf(r, "spec.nextHopMode", deref(spec.NextHopMode), model.NextHopAuto, model.NextHopSelf, model.NextHopKeep),
		KeepOriginalNextHop: spec.KeepOriginalNextHop,
		Password:            passwordRef(spec.Password),
		AnySource:           oneOf(r, "spec.sourceAddress", spec.SourceAddress, "UseNodeIP", "None") == "None",
		NumAllowedLocalASNs: int(deref(spec.NumAllowedLocalASNumbers)),
		TTLSecurity:         int(deref(spec.TTLSecurity)),
		ReachableBy:         r.addr("spec.reachableBy", spec.ReachableBy),
		Filters:             spec.Filters,
		NoReverse:           oneOf(r, "spec.reversePeering", deref(spec.ReversePeering), "Auto", "Manual") == "Manual",
		Annotations:         ours(o.Annotations),
	}
	out.PeerIP, out.PeerPort = r.addrPort("spec.peerIP", spec.PeerIP)
	r.peerAddress(spec.PeerIP, out.PeerIP)
	out.HasLocalWorkloadPeering = spec.LocalWorkloadSelector != ""
	out.LocalWorkloadSelector = r.selector("spec.localWorkloadSelector", spec.LocalWorkloadSelector)
	if d := spec.MaxRestartTime; d != nil {
		out.MaxRestartTime = d.Duration
	}
	if d := spec.KeepaliveTime; d != nil {
		out.KeepaliveTime = d.Duration
	}
	r.clamped("spec.numAllowedLocalASNumbers", out.NumAllowedLocalASNs, 10)
	r.clamped("spec.ttlSecurity", out.TTLSecurity, 254)
	r.peerShape(&spec)
	return finish(r, out)
}

// clamped tells of a number in place of which another one is used.
func (r *reader) clamped(field string, n, most int) {
	if n > most {
		r.warn(field, "%d is more than BGP here can do; %d is used", n, most)
	}
}

// peerAddress refuses addresses that nobody can be spoken to at, so that the
// last good one stays in force.
func (r *reader) peerAddress(text string, a netip.Addr) {
	switch {
	case !a.IsValid():
	case a.IsUnspecified(), a.IsMulticast(), a.IsLoopback():
		r.fail("spec.peerIP", "%s cannot be the address of a peer", text)
	case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		r.fail("spec.peerIP", "%s is link-local: say on which interface, as in %s%%eth0", text, a)
	}
}

// peerShape holds the rules between fields that the CRD holds too, for objects
// stored before it did.
func (r *reader) peerShape(spec *v3.BGPPeerSpec) {
	if spec.Node != "" && spec.NodeSelector != "" {
		r.fail("spec.nodeSelector", "node and nodeSelector cannot both be set")
	}
	targets := 0
	for _, t := range []string{spec.PeerIP, spec.PeerSelector, spec.LocalWorkloadSelector} {
		if t != "" {
			targets++
		}
	}
	if targets != 1 {
		r.fail("spec.peerIP", "set exactly one of peerIP, peerSelector and localWorkloadSelector")
	}
	if spec.PeerSelector != "" && spec.ASNumber != 0 {
		r.fail("spec.asNumber", "must be empty when peerSelector is set; the number comes from the peer node")
	}
	if spec.PeerSelector == "" && spec.ASNumber == 0 {
		r.fail("spec.asNumber", "is required unless peerSelector is set")
	}
	if spec.ReachableBy != "" && spec.PeerIP == "" {
		r.fail("spec.reachableBy", "needs peerIP")
	}
}
