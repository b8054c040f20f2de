package netpol

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// clusterSpec is the spec with what has to be read strictly unread.
type clusterSpec struct {
	ClusterPolicySpec `json:",inline"`
	Subject           json.RawMessage   `json:"subject"`
	Ingress           []json.RawMessage `json:"ingress"`
	Egress            []json.RawMessage `json:"egress"`
}

// clusterTiers are the tiers that ClusterNetworkPolicies are of.
var clusterTiers = map[string]string{"Admin": model.AdminTier, "Baseline": model.BaselineTier}

// Cluster translates the spec of a ClusterNetworkPolicy. ok is false if it cannot
// be said which pods the policy is for, or when.
//
// A rule of it becomes one for each of its peers and protocols, with the same
// index. As the API asks, a rule with anything that is not known here, a field of
// a later version among it, matches nothing if it accepts, and is a Deny of
// everything otherwise.
func Cluster(name string, spec []byte) (p model.Policy, problems []model.Problem, ok bool) {
	r := &clusterReader{reader: reader{object: model.Ref{Kind: model.KindClusterPolicy, Name: name}}}
	var s clusterSpec
	if len(spec) > 0 {
		if err := json.Unmarshal(spec, &s); err != nil {
			r.warn("spec", "cannot be read: %v", err)
			return p, r.problems, false
		}
	}
	tier, ok := clusterTiers[s.Tier]
	if !ok {
		r.warn("spec.tier", "%q is not one of Admin, Baseline", s.Tier)
	}
	p = model.Policy{Object: r.object, Tier: tier, Order: float64(s.Priority), Ingress: len(s.Ingress) > 0, Egress: len(s.Egress) > 0}
	p.Selector = r.subject(s.Subject)
	ok = ok && !r.bad
	for i, raw := range s.Ingress {
		p.IngressRules = append(p.IngressRules, r.rule("spec.ingress", i, raw, false)...)
	}
	for i, raw := range s.Egress {
		p.EgressRules = append(p.EgressRules, r.rule("spec.egress", i, raw, true)...)
	}
	return p, r.problems, ok
}

// clusterReader is a reader of one policy; bad is set by what cannot be read of
// its subject, or of one rule.
type clusterReader struct {
	reader
	bad bool
}

func (r *clusterReader) fail(field, format string, args ...any) {
	r.bad = true
	r.warn(field, format, args...)
}

// strictly reads JSON in which every field has to be known.
func strictly(raw []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

func (r *clusterReader) subject(raw json.RawMessage) *selector.Selector {
	var v ClusterPods
	if len(raw) > 0 {
		if err := strictly(raw, &v); err != nil {
			r.fail("spec.subject", "cannot be read: %v", err)
			return nil
		}
	}
	if v.Namespaces == nil && v.Pods == nil || v.Namespaces != nil && v.Pods != nil {
		r.fail("spec.subject", "names no pods: set one of namespaces, pods")
		return nil
	}
	return r.pods("spec.subject", &v)
}

// pods gives what v selects, of which one field is set.
func (r *clusterReader) pods(field string, v *ClusterPods) *selector.Selector {
	all := []*selector.Selector{kubernetesPods}
	add := func(field, prefix string, s *metav1.LabelSelector) {
		one, ok := r.labelSelector(field, prefix, s)
		r.bad = r.bad || !ok
		all = append(all, one)
	}
	if v.Namespaces != nil {
		add(field+".namespaces", model.LabelPrefixOfNamespace, v.Namespaces)
	} else {
		add(field+".pods.namespaceSelector", model.LabelPrefixOfNamespace, &v.Pods.NamespaceSelector)
		add(field+".pods.podSelector", "", &v.Pods.PodSelector)
	}
	if r.bad {
		return nil // a bad rule's selector is not looked at
	}
	return selector.And(all...)
}

func (r *clusterReader) rule(list string, index int, raw json.RawMessage, egress bool) []model.PolicyRule {
	r.bad = false
	field := fmt.Sprintf("%s[%d]", list, index)
	head, peers := r.decode(field, raw, egress)
	base := model.PolicyRule{Action: r.action(field, head.Action), Index: index}
	var sides []model.PolicyPeer
	if !r.bad {
		sides = r.peers(field, peers, egress)
	}
	var out []model.PolicyRule
	for _, m := range r.protocols(field, &head, peers) {
		for _, side := range sides {
			one := base
			one.Protocol = m.protocol
			if egress {
				one.Destination = side
			} else {
				one.Source = side
			}
			one.Destination.Ports = m.ports
			out = append(out, one)
		}
	}
	if r.bad {
		base.Unreadable = true
		return []model.PolicyRule{base}
	}
	return out
}

// decode reads a rule. Of one that cannot be read the action is looked for.
func (r *clusterReader) decode(field string, raw json.RawMessage, egress bool) (ClusterRule, []ClusterEgressPeer) {
	var in ClusterIngressRule
	var out ClusterEgressRule
	var err error
	if egress {
		err = strictly(raw, &out)
	} else {
		err = strictly(raw, &in)
		out.ClusterRule = in.ClusterRule
		for _, p := range in.From {
			out.To = append(out.To, ClusterEgressPeer{ClusterPods: p})
		}
	}
	if err != nil {
		r.fail(field, "cannot be read: %v", err)
		var peek struct {
			Action string `json:"action"`
		}
		_ = json.Unmarshal(raw, &peek) // no action is a Deny, see action
		return ClusterRule{Action: peek.Action}, nil
	}
	return out.ClusterRule, out.To
}

func (r *clusterReader) action(field, a string) model.PolicyAction {
	switch a {
	case "Accept":
		return model.PolicyAllow
	case "Deny", "Pass":
		return model.PolicyAction(a)
	}
	r.fail(field+".action", "%q is not one of Accept, Deny, Pass; the rule denies everything", a)
	return model.PolicyDeny
}

func (r *clusterReader) peers(field string, list []ClusterEgressPeer, egress bool) []model.PolicyPeer {
	word := map[bool]string{false: "from", true: "to"}[egress]
	if len(list) == 0 {
		r.fail(field+"."+word, "names no peer")
	}
	var out []model.PolicyPeer
	for i := range list {
		out = append(out, r.peer(fmt.Sprintf("%s.%s[%d]", field, word, i), &list[i]))
	}
	return out
}

func (r *clusterReader) peer(field string, p *ClusterEgressPeer) (out model.PolicyPeer) {
	set := 0
	for _, is := range []bool{p.Namespaces != nil, p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if is {
			set++
		}
	}
	switch {
	case set != 1:
		r.fail(field, "needs one field that is known here, and has %d", set)
	case len(p.DomainNames) > 0:
		r.bad = true
		r.report("Unsupported", field+".domainNames", "nothing here follows the addresses of names; name networks")
	case p.Nodes != nil:
		if s, ok := r.labelSelector(field+".nodes", "", p.Nodes); ok {
			out.Nodes = s
		} else {
			r.bad = true
		}
	case len(p.Networks) > 0:
		for i, text := range p.Networks {
			n, ok := r.prefix(fmt.Sprintf("%s.networks[%d]", field, i), text)
			r.bad = r.bad || !ok
			out.Nets = append(out.Nets, n)
		}
	default:
		if s := r.pods(field, &p.ClusterPods); s != nil {
			out.Selector = s
		}
	}
	return out
}

// protocols sorts the entries by protocol: ports of one go into one rule.
func (r *clusterReader) protocols(field string, rule *ClusterRule, peers []ClusterEgressPeer) []portMatch {
	if rule.Protocols == nil {
		return []portMatch{{}}
	}
	if len(rule.Protocols) == 0 {
		r.fail(field+".protocols", "names no protocol; without it the rule is about all")
	}
	var out []portMatch
	for i := range rule.Protocols {
		entry := &rule.Protocols[i]
		protocol, port := r.protocol(fmt.Sprintf("%s.protocols[%d]", field, i), entry)
		for _, p := range peers {
			if port.Name != "" && p.Namespaces == nil && p.Pods == nil {
				r.fail(fmt.Sprintf("%s.protocols[%d].destinationNamedPort", field, i), "means nothing where a peer is no pod")
			}
		}
		out = addPort(out, protocol, port)
	}
	return out
}

// addPort puts a port to those of its protocol.
func addPort(list []portMatch, protocol uint8, port model.PolicyPort) []portMatch {
	for i := range list {
		if list[i].protocol == protocol {
			list[i].ports = append(list[i].ports, port)
			return list
		}
	}
	return append(list, portMatch{protocol, []model.PolicyPort{port}})
}

func (r *clusterReader) protocol(field string, v *ClusterProtocol) (number uint8, port model.PolicyPort) {
	set := 0
	for _, p := range []struct {
		word   string
		number uint8
		ports  *ClusterPorts
	}{{".tcp", 6, v.TCP}, {".udp", 17, v.UDP}, {".sctp", 132, v.SCTP}} {
		if p.ports != nil {
			set++
			number, port = p.number, r.port(field+p.word+".destinationPort", p.ports.DestinationPort)
		}
	}
	if v.DestinationNamedPort != "" {
		set++
		port.Name = v.DestinationNamedPort
	}
	if set != 1 {
		r.fail(field, "needs one field that is known here, and has %d", set)
	}
	return number, port
}

func (r *clusterReader) port(field string, p *ClusterPort) model.PolicyPort {
	if p == nil || (p.Number == 0) == (p.Range == nil) {
		r.fail(field, "names no port: set one of number, range")
		return model.PolicyPort{}
	}
	first, last := p.Number, p.Number
	if p.Range != nil {
		first, last = p.Range.Start, p.Range.End
	}
	if first < 1 || last > 65535 || last < first {
		r.fail(field, "%d to %d are not ports: want 1 to 65535, and end not below start", first, last)
		return model.PolicyPort{}
	}
	return model.PolicyPort{First: uint16(first), Last: uint16(last)}
}
