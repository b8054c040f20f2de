package netpol

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
)

// policySpec is the spec of a NetworkPolicy or GlobalNetworkPolicy with its rules
// unread, so that a bad one does not fail the others. What a NetworkPolicy lacks
// of it is empty.
type policySpec struct {
	calico.GlobalNetworkPolicySpec `json:",inline"`
	Ingress                        []json.RawMessage `json:"ingress"`
	Egress                         []json.RawMessage `json:"egress"`
}

// Calico translates the spec of a policy of projectcalico.org/v3: ref is of kind
// NetworkPolicy, with a namespace, or GlobalNetworkPolicy, without. What the API
// server has not defaulted is defaulted here. ok is false if it cannot be said
// which endpoints the policy is for, when, or in which directions.
func Calico(ref model.Ref, spec []byte) (p model.Policy, problems []model.Problem, ok bool) {
	r := &calicoReader{reader: reader{object: ref}, namespace: ref.Namespace}
	var s policySpec
	if len(spec) > 0 {
		if err := json.Unmarshal(spec, &s); err != nil {
			r.warn("spec", "cannot be read: %v", err)
			return p, r.problems, false
		}
	}
	p = model.Policy{Object: ref, Tier: s.Tier, Order: model.NoOrder()}
	if p.Tier == "" {
		p.Tier = model.DefaultTier
	}
	if s.Order != nil {
		p.Order = *s.Order
	}
	p.Selector, ok = r.subject(&s)
	p.Ingress, p.Egress = r.types(&s)
	p.IngressRules, p.EgressRules = r.rules("spec.ingress", s.Ingress, false), r.rules("spec.egress", s.Egress, true)
	p.Forward, p.Untracked, p.PreDNAT = s.ApplyOnForward, s.DoNotTrack, s.PreDNAT
	return p, r.problems, ok
}

// calicoReader is a reader of one policy; namespace is empty for a global one.
type calicoReader struct {
	reader
	namespace string
}

// selector parses text; empty text selects everything.
func (r *calicoReader) selector(field, text string) (s *selector.Selector, ok bool) {
	s, err := selector.Parse(text)
	if err != nil {
		r.warn(field, "%v", err)
		return nil, false
	}
	return s, true
}

var (
	inNamespace = selector.Has(model.LabelNamespace)
	hasAccount  = selector.Has(model.LabelPrefixOfAccount + model.LabelOwnName)
)

// subject gives which endpoints a policy is for.
func (r *calicoReader) subject(s *policySpec) (*selector.Selector, bool) {
	own, ok := r.selector("spec.selector", s.Selector)
	all := []*selector.Selector{own}
	if r.namespace != "" {
		all = append(all, ofNamespace(r.namespace))
	} else if s.NamespaceSelector != "" {
		namespaces, good := r.namespaces("spec.namespaceSelector", s.NamespaceSelector)
		all, ok = append(all, namespaces), ok && good
	}
	if s.ServiceAccountSelector != "" {
		accounts, good := r.selector("spec.serviceAccountSelector", s.ServiceAccountSelector)
		all, ok = append(all, accounts.Within(model.LabelPrefixOfAccount, hasAccount)), ok && good
	}
	if !ok {
		return nil, false
	}
	return selector.And(all...), true
}

// namespaces gives what is in the namespaces that text selects, or in none if it
// is global().
func (r *calicoReader) namespaces(field, text string) (*selector.Selector, bool) {
	if selector.IsGlobal(text) {
		return selector.Not(inNamespace), true
	}
	if strings.Contains(text, "global()") {
		r.warn(field, "global() stands alone: it cannot be combined with other selectors")
		return nil, false
	}
	s, ok := r.selector(field, text)
	return s.Within(model.LabelPrefixOfNamespace, inNamespace), ok
}

// types gives the directions: those that are named, else those of the rules, and
// ingress if there are none.
func (r *calicoReader) types(s *policySpec) (ingress, egress bool) {
	for i, t := range s.Types {
		switch t {
		case calico.PolicyTypeIngress:
			ingress = true
		case calico.PolicyTypeEgress:
			egress = true
		default:
			r.warn(fmt.Sprintf("spec.types[%d]", i), "%q is not one of Ingress, Egress", t)
		}
	}
	if len(s.Types) == 0 {
		return len(s.Ingress) > 0 || len(s.Egress) == 0, len(s.Egress) > 0
	}
	return ingress, egress
}

func (r *calicoReader) rules(field string, list []json.RawMessage, egress bool) []model.PolicyRule {
	var out []model.PolicyRule
	for i, raw := range list {
		rule := r.rule(fmt.Sprintf("%s[%d]", field, i), raw, egress)
		rule.Index = i
		out = append(out, rule)
	}
	return out
}

// NetworkSet translates the spec of a NetworkSet or GlobalNetworkSet. A net that
// cannot be read is left out.
func NetworkSet(ref model.Ref, labels map[string]string, spec []byte) (s model.NetworkSet, problems []model.Problem, ok bool) {
	r := reader{object: ref}
	var v calico.NetworkSetSpec
	if len(spec) > 0 {
		if err := json.Unmarshal(spec, &v); err != nil {
			r.warn("spec", "cannot be read: %v", err)
			return s, r.problems, false
		}
	}
	s = model.NetworkSet{Object: ref, Labels: labels}
	for i, text := range v.Nets {
		if p, good := r.net(fmt.Sprintf("spec.nets[%d]", i), text); good {
			s.Nets = append(s.Nets, p)
		}
	}
	return s, r.problems, true
}

// Tier translates the spec of a Tier.
func Tier(name string, spec []byte) (t model.Tier, problems []model.Problem, ok bool) {
	r := reader{object: model.Ref{Kind: "Tier", Name: name}}
	var v calico.TierSpec
	if len(spec) > 0 {
		if err := json.Unmarshal(spec, &v); err != nil {
			r.warn("spec", "cannot be read: %v", err)
			return t, r.problems, false
		}
	}
	t = model.Tier{Name: name, Order: model.NoOrder()}
	if v.Order != nil {
		t.Order = *v.Order
	}
	if a := v.DefaultAction; a != nil {
		t.Pass = *a == calico.Pass
		if *a != calico.Pass && *a != calico.Deny {
			r.warn("spec.defaultAction", "%q is not one of Deny, Pass; it is taken for Deny", *a)
		}
	}
	return t, r.problems, true
}
