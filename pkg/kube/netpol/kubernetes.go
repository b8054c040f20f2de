package netpol

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	corev1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Kubernetes translates a NetworkPolicy of networking.k8s.io/v1. ok is false if
// it cannot be said which pods it is for.
//
// A rule of it becomes one for each of its peers and protocols, with the same
// index. Entries of a list are alternatives: one that cannot be read is left out,
// and a rule of which none is left matches nothing.
func Kubernetes(o *networking.NetworkPolicy) (p model.Policy, problems []model.Problem, ok bool) {
	r := &kubernetesReader{
		reader:    reader{object: model.Ref{Kind: model.KindKubernetesPolicy, Namespace: o.Namespace, Name: o.Name}},
		namespace: o.Namespace,
	}
	pods, ok := r.labelSelector("spec.podSelector", "", &o.Spec.PodSelector)
	p = model.Policy{
		Object: r.object, Tier: model.DefaultTier, Order: model.KubernetesPolicyOrder,
		Selector: selector.And(ofNamespace(o.Namespace), kubernetesPods, pods),
	}
	p.Ingress, p.Egress = r.types(&o.Spec)
	for i, rule := range o.Spec.Ingress {
		r.field, r.egress = fmt.Sprintf("spec.ingress[%d]", i), false
		for _, m := range r.rule(rule.From, "from", rule.Ports) {
			m.Index = i
			p.IngressRules = append(p.IngressRules, m)
		}
	}
	for i, rule := range o.Spec.Egress {
		r.field, r.egress = fmt.Sprintf("spec.egress[%d]", i), true
		for _, m := range r.rule(rule.To, "to", rule.Ports) {
			m.Index = i
			p.EgressRules = append(p.EgressRules, m)
		}
	}
	return p, r.problems, ok
}

// kubernetesReader is a reader of one policy; field and egress say of which rule.
type kubernetesReader struct {
	reader
	namespace, field string
	egress           bool
}

// types gives the directions of a policy: those it names, else ingress, and
// egress if it has rules for that. One that it names and that does not exist is
// reported; the others stand.
func (r *kubernetesReader) types(spec *networking.NetworkPolicySpec) (ingress, egress bool) {
	for i, t := range spec.PolicyTypes {
		switch t {
		case networking.PolicyTypeIngress:
			ingress = true
		case networking.PolicyTypeEgress:
			egress = true
		default:
			r.warn(fmt.Sprintf("spec.policyTypes[%d]", i), "%q is not one of Ingress, Egress", t)
		}
	}
	if len(spec.PolicyTypes) == 0 {
		return true, len(spec.Egress) > 0
	}
	return ingress, egress
}

func (r *kubernetesReader) rule(peers []networking.NetworkPolicyPeer, word string, ports []networking.NetworkPolicyPort) []model.PolicyRule {
	sides := []model.PolicyPeer{{}}
	if len(peers) > 0 {
		sides = r.peers(peers, word)
	}
	matches := []portMatch{{}}
	if len(ports) > 0 {
		matches = r.ports(ports)
	}
	var out []model.PolicyRule
	for _, side := range sides {
		for _, m := range matches {
			rule := model.PolicyRule{Action: model.PolicyAllow, Protocol: m.protocol}
			rule.Source, rule.Destination = side, model.PolicyPeer{}
			if r.egress {
				rule.Source, rule.Destination = rule.Destination, rule.Source
			}
			rule.Destination.Ports = m.ports
			if r.egress && len(side.Nets) > 0 {
				rule.Destination.Ports = r.withoutNames(m.ports)
			}
			if len(m.ports) == 0 || len(rule.Destination.Ports) > 0 {
				out = append(out, rule)
			}
		}
	}
	return out
}

// withoutNames leaves out named ports where the peers are nets: nets name none.
func (r *kubernetesReader) withoutNames(ports []model.PolicyPort) []model.PolicyPort {
	out := slices.DeleteFunc(slices.Clone(ports), func(p model.PolicyPort) bool { return p.Name != "" })
	if len(out) < len(ports) {
		r.warn(r.field+".ports", "the name of a port means nothing where the peer is an ipBlock; it matches no port there")
	}
	return out
}

// portMatch is a protocol, 0 for any, and ports of it, none for any.
type portMatch struct {
	protocol uint8
	ports    []model.PolicyPort
}

// ports sorts the entries by protocol: ports of one go into one rule.
func (r *kubernetesReader) ports(list []networking.NetworkPolicyPort) []portMatch {
	var out []portMatch
	whole := map[uint8]bool{}
	for i, p := range list {
		protocol, port, ok := r.port(fmt.Sprintf("%s.ports[%d]", r.field, i), p)
		if !ok {
			continue
		}
		at := slices.IndexFunc(out, func(m portMatch) bool { return m.protocol == protocol })
		if at < 0 {
			at = len(out)
			out = append(out, portMatch{protocol: protocol})
		}
		if port == nil {
			whole[protocol] = true
			continue
		}
		out[at].ports = append(out[at].ports, *port)
	}
	for i := range out {
		if whole[out[i].protocol] {
			out[i].ports = nil
		}
	}
	return out
}

// port reads one entry; port is nil if the entry is for all of the protocol.
func (r *kubernetesReader) port(field string, p networking.NetworkPolicyPort) (protocol uint8, port *model.PolicyPort, ok bool) {
	protocol, ok = Protocol(p.Protocol)
	switch {
	case !ok:
		r.warn(field+".protocol", "%q is not one of TCP, UDP, SCTP", *p.Protocol)
		return 0, nil, false
	case p.Port == nil && p.EndPort == nil:
		return protocol, nil, true
	case p.Port == nil || p.EndPort != nil && p.Port.Type == intstr.String:
		r.warn(field+".endPort", "needs a number as port")
		return 0, nil, false
	case p.Port.Type == intstr.String:
		if p.Port.StrVal == "" {
			r.warn(field+".port", "is an empty name")
			return 0, nil, false
		}
		return protocol, &model.PolicyPort{Name: p.Port.StrVal}, true
	}
	first, last := p.Port.IntVal, p.Port.IntVal
	if p.EndPort != nil {
		last = *p.EndPort
	}
	if first < 1 || last > 65535 || last < first {
		r.warn(field+".port", "%d to %d are not ports: want 1 to 65535, and endPort not below port", first, last)
		return 0, nil, false
	}
	return protocol, &model.PolicyPort{First: uint16(first), Last: uint16(last)}, true
}

// Protocol gives the IP protocol number of a port's protocol; nil and empty are
// TCP.
func Protocol(p *corev1.Protocol) (number uint8, ok bool) {
	if p == nil || *p == "" {
		return 6, true
	}
	number, ok = map[corev1.Protocol]uint8{corev1.ProtocolTCP: 6, corev1.ProtocolUDP: 17, corev1.ProtocolSCTP: 132}[*p]
	return number, ok
}

func (r *kubernetesReader) peers(list []networking.NetworkPolicyPeer, word string) []model.PolicyPeer {
	var out []model.PolicyPeer
	for i, p := range list {
		if side, ok := r.peer(fmt.Sprintf("%s.%s[%d]", r.field, word, i), p); ok {
			out = append(out, side)
		}
	}
	return out
}

func (r *kubernetesReader) peer(field string, p networking.NetworkPolicyPeer) (out model.PolicyPeer, ok bool) {
	switch {
	case p.IPBlock != nil && (p.PodSelector != nil || p.NamespaceSelector != nil):
		r.warn(field+".ipBlock", "cannot stand with a selector")
		return out, false
	case p.IPBlock != nil:
		return r.block(field+".ipBlock", p.IPBlock)
	case p.PodSelector == nil && p.NamespaceSelector == nil:
		r.warn(field, "names no peer: set podSelector, namespaceSelector or ipBlock")
		return out, false
	}
	where, ok := ofNamespace(r.namespace), true
	if p.NamespaceSelector != nil {
		where, ok = r.labelSelector(field+".namespaceSelector", model.LabelPrefixOfNamespace, p.NamespaceSelector)
	}
	pods := selector.All()
	if ok && p.PodSelector != nil {
		pods, ok = r.labelSelector(field+".podSelector", "", p.PodSelector)
	}
	if !ok {
		return out, false
	}
	out.Selector = selector.And(where, kubernetesPods, pods)
	return out, true
}

// block reads an ipBlock; if its cidr or an except cannot be read, it matches
// nothing.
func (r *kubernetesReader) block(field string, b *networking.IPBlock) (out model.PolicyPeer, ok bool) {
	cidr, ok := r.prefix(field+".cidr", b.CIDR)
	out.Nets = []netip.Prefix{cidr}
	for i, text := range b.Except {
		not, good := r.prefix(fmt.Sprintf("%s.except[%d]", field, i), text)
		ok = ok && good
		// One of the other IP version takes nothing away.
		if not.Addr().Is4() == cidr.Addr().Is4() {
			out.NotNets = append(out.NotNets, not)
		}
	}
	return out, ok
}
