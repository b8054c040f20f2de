package policy

import (
	"cmp"
	"net/netip"
	"regexp"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// evaluate decides about packets straight from the objects, and slowly: it knows
// nothing of sets, groups and chains. What Compile makes is compared with it.
type evaluate struct {
	in Input
}

// allows reports what becomes of a packet at an endpoint; known is false if the
// endpoint's pod is not.
func (j evaluate) allows(e model.Endpoint, in bool, p Packet) (allowed, known bool) {
	v := j.in.View
	if v.Policies.Len() == 0 && !v.More {
		return true, true
	}
	labels, known := j.labelsOf(e.Namespace, e.Pod)
	if !known || v.Of != nil && !v.Of[e.Namespace] {
		return false, false
	}
	for _, t := range j.tiers() {
		verdict, counted := j.tier(t, labels, in, p, func(p model.Policy) bool { return !p.Untracked && !p.PreDNAT })
		switch {
		case !counted:
		case verdict == "":
			if !t.Pass {
				return false, true
			}
		case verdict != model.PolicyPass:
			return verdict == model.PolicyAllow, true
		}
	}
	return true, true
}

// tiers gives every tier, and one for each that is missing, in order.
func (j evaluate) tiers() []model.Tier {
	out := []model.Tier{{Name: "kube-admin", Order: 1e3, Pass: true}, {Name: "default", Order: 1e6}, {Name: "kube-baseline", Order: 1e7, Pass: true}}
	has := func(name string) bool {
		return slices.ContainsFunc(out, func(t model.Tier) bool { return t.Name == name })
	}
	for _, t := range j.in.View.Tiers {
		if !has(t.Name) {
			out = append(out, t)
		}
	}
	slices.SortFunc(out, func(a, b model.Tier) int { return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name)) })
	known := len(out)
	for p := range j.in.View.Policies.All() {
		if !has(p.Tier) {
			out = append(out, model.Tier{Name: p.Tier})
		}
	}
	slices.SortFunc(out[known:], func(a, b model.Tier) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// tier gives the verdict of a tier, "" for none; counted is false if none of its
// policies of that direction selects the endpoint.
func (j evaluate) tier(t model.Tier, labels map[string]string, in bool, p Packet, such func(model.Policy) bool) (verdict model.PolicyAction, counted bool) {
	policies := slices.SortedFunc(j.in.View.Policies.All(), func(a, b *model.Policy) int {
		name := func(p *model.Policy) string { return p.Object.Name + "/" + p.Object.Namespace + "/" + p.Object.Kind }
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(name(a), name(b)))
	})
	for _, policy := range policies {
		decides, rules := policy.Egress, policy.EgressRules
		if in {
			decides, rules = policy.Ingress, policy.IngressRules
		}
		if policy.Tier != t.Name || !decides || !such(*policy) || policy.Selector != nil && !policy.Selector.Matches(labels) {
			continue
		}
		counted = true
		for _, r := range rules {
			if a := j.rule(r, in, p); a != "" && a != model.PolicyLog {
				return a, true
			}
		}
	}
	return "", counted
}

// rule gives the verdict of a rule on a packet, "" if it does not match.
func (j evaluate) rule(r model.PolicyRule, in bool, p Packet) model.PolicyAction {
	if r.Unreadable {
		if r.Action == model.PolicyAllow || r.Action == model.PolicyLog {
			return ""
		}
		return model.PolicyDeny
	}
	version := uint8(6)
	if p.Source.Is4() {
		version = 4
	}
	switch {
	case r.IPVersion != 0 && r.IPVersion != version,
		r.Protocol != 0 && r.Protocol != p.Protocol,
		r.NotProtocol != 0 && r.NotProtocol == p.Protocol,
		r.ICMP != nil && !icmpIs(r.ICMP, p),
		r.NotICMP != nil && icmpIs(r.NotICMP, p),
		!j.peer(r.Source, r.Protocol, p.Source, p.SourcePort, p, in, false),
		!j.peer(r.Destination, r.Protocol, p.Destination, p.DestinationPort, p, in, true):
		return ""
	}
	return r.Action
}

func icmpIs(m *model.ICMPMatch, p Packet) bool {
	return m.Type == p.ICMPType && (m.Code == nil || *m.Code == p.ICMPCode)
}

func (j evaluate) peer(peer model.PolicyPeer, protocol uint8, a netip.Addr, port uint16, p Packet, in, destination bool) bool {
	own := destination == in
	// A list that has nothing of the packet's IP version is for packets of the other.
	for _, list := range [][]netip.Prefix{peer.Nets, peer.NotNets} {
		if len(list) > 0 && !slices.ContainsFunc(list, func(n netip.Prefix) bool { return n.Addr().Unmap().Is4() == a.Is4() }) {
			return false
		}
	}
	if peer.Nodes != nil && !slices.ContainsFunc(j.in.View.Nodes, func(n model.PolicyNode) bool {
		return peer.Nodes.Matches(n.Labels) && slices.Contains(n.Addresses, a)
	}) {
		return false
	}
	selected := func(labels map[string]string) bool {
		return peer.Selector.Matches(labels) && (peer.NotSelector == nil || !peer.NotSelector.Matches(labels))
	}
	switch {
	case len(peer.Nets) > 0 && !contain(peer.Nets, a), contain(peer.NotNets, a):
		return false
	case peer.Selector != nil && !j.someoneHas(a, selected):
		return false
	case peer.Selector == nil && peer.NotSelector != nil && j.someoneHas(a, peer.NotSelector.Matches):
		return false
	}
	if peer.Service != "" && !slices.ContainsFunc(j.in.View.Services[peer.Service], func(e model.ServiceEndpoint) bool {
		return e.Addr == a && (!destination || e.Protocol != 0 && e.Protocol == p.Protocol && e.Port == port)
	}) {
		return false
	}
	declared := func(name string) bool {
		if own && peer.Selector == nil && !j.attached(j.owner(a)) {
			return false // the name is asked of the endpoint's own pod
		}
		return j.declares(a, name, p.Protocol, port, func(labels map[string]string) bool { return peer.Selector == nil || selected(labels) })
	}
	is := func(x model.PolicyPort) bool {
		if x.Name != "" {
			return declared(x.Name)
		}
		return x.First <= port && port <= x.Last
	}
	return (len(peer.Ports) == 0 || slices.ContainsFunc(peer.Ports, is)) && !slices.ContainsFunc(peer.NotPorts, is)
}

func contain(nets []netip.Prefix, a netip.Addr) bool {
	mapped := netip.AddrFrom16(a.As16())
	return slices.ContainsFunc(nets, func(n netip.Prefix) bool {
		if n.Addr().Is4In6() {
			return a.Is4() && n.Bits() >= 96 && inBits(n.Addr().AsSlice(), mapped.AsSlice(), n.Bits())
		}
		return n.Addr().Is4() == a.Is4() && inBits(n.Addr().AsSlice(), a.AsSlice(), n.Bits())
	})
}

func inBits(net, a []byte, bits int) bool {
	for i := range bits {
		if (net[i/8]^a[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}

// someoneHas reports whether a is of a pod or network set with such labels.
func (j evaluate) someoneHas(a netip.Addr, such func(map[string]string) bool) bool {
	if pod := j.owner(a); pod != nil {
		if labels, known := j.labelsOf(pod.Namespace, pod.Name); known && such(labels) {
			return true
		}
	}
	for _, s := range j.in.View.NetworkSets {
		if labels, known := j.labelsOfSet(s); known && contain(s.Nets, a) && such(labels) {
			return true
		}
	}
	for _, e := range j.in.View.HostEndpoints {
		labels, _ := j.labelsOfSet(model.NetworkSet{Labels: e.Labels})
		if slices.Contains(e.Addresses, a) && such(labels) {
			return true
		}
	}
	return false
}

func (j evaluate) declares(a netip.Addr, name string, protocol uint8, port uint16, such func(map[string]string) bool) bool {
	pod := j.owner(a)
	if pod == nil {
		return false
	}
	labels, known := j.labelsOf(pod.Namespace, pod.Name)
	return known && such(labels) && slices.Contains(pod.Ports, model.NamedPort{Name: name, Protocol: protocol, Port: port})
}

func (j evaluate) pod(namespace, name string) *model.PolicyPod {
	if p, found := j.in.View.Pods.Get(&model.PolicyPod{Namespace: namespace, Name: name}); found && !p.HostNetwork {
		return p
	}
	return nil
}

func (j evaluate) attached(p *model.PolicyPod) bool {
	return p != nil && slices.ContainsFunc(j.in.Endpoints, func(e model.Endpoint) bool { return e.Namespace == p.Namespace && e.Pod == p.Name })
}

// owner gives the pod whose address a is: one whose sandbox is here and has it,
// else whom a block gives it to, else the youngest that the API gives it to.
func (j evaluate) owner(a netip.Addr) *model.PolicyPod {
	var here, there *model.PolicyPod
	younger := func(p, than *model.PolicyPod) bool {
		if than == nil || slices.Contains(p.Leased, a) != slices.Contains(than.Leased, a) {
			return than == nil || slices.Contains(p.Leased, a)
		}
		return cmp.Or(p.Created.Compare(than.Created), cmp.Compare(p.Namespace, than.Namespace), cmp.Compare(p.Name, than.Name)) > 0
	}
	attached := map[*model.PolicyPod]bool{}
	for _, e := range j.in.Endpoints {
		p := j.pod(e.Namespace, e.Pod)
		attached[p] = true
		switch {
		case !slices.Contains(e.Addresses, a):
		case p == nil:
			return nil
		case !p.Finished && younger(p, here):
			here = p
		}
	}
	for p := range j.in.View.Pods.All() {
		if p.HostNetwork || p.Finished || attached[p] || p.Node == j.in.Self || !slices.Contains(p.Addresses, a) {
			continue
		}
		// A pod of a namespace that is not known has its address, and is nobody's peer.
		if younger(p, there) {
			there = p
		}
	}
	if here != nil {
		return here
	}
	return there
}

func (j evaluate) labelsOf(namespace, name string) (labels map[string]string, known bool) {
	pod := j.pod(namespace, name)
	ns, known := j.in.View.Namespaces[namespace]
	if pod == nil || !known {
		return nil, false
	}
	labels = map[string]string{}
	for k, v := range ns {
		labels["pcns."+k] = v
	}
	labels["pcns.projectcalico.org/name"] = namespace
	if sa := pod.ServiceAccount; sa != "" {
		for k, v := range j.in.View.ServiceAccounts[namespace+"/"+sa] {
			labels["pcsa."+k] = v
		}
		labels["pcsa.projectcalico.org/name"] = sa
	}
	for k, v := range pod.Labels {
		if !lent.MatchString(k) {
			labels[k] = v
		}
	}
	labels["projectcalico.org/namespace"] = namespace
	labels["projectcalico.org/orchestrator"] = "k8s"
	if sa := pod.ServiceAccount; sa != "" && len(sa) < 63 {
		labels["projectcalico.org/serviceaccount"] = sa
	}
	return labels, true
}

// lent are labels that nobody has by his own.
var lent = regexp.MustCompile(`^(pcns\.|pcsa\.|projectcalico\.org/(namespace|orchestrator|serviceaccount)$)`)

func (j evaluate) labelsOfSet(s model.NetworkSet) (labels map[string]string, known bool) {
	labels = map[string]string{}
	ns, known := j.in.View.Namespaces[s.Object.Namespace]
	if s.Object.Namespace != "" {
		if !known {
			return nil, false
		}
		for k, v := range ns {
			labels["pcns."+k] = v
		}
		labels["pcns.projectcalico.org/name"] = s.Object.Namespace
	}
	for k, v := range s.Labels {
		if !lent.MatchString(k) {
			labels[k] = v
		}
	}
	if s.Object.Namespace != "" {
		labels["projectcalico.org/namespace"] = s.Object.Namespace
	}
	return labels, true
}
