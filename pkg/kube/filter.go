package kube

import (
	"fmt"
	"net/netip"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
)

// readFilter translates a BGPFilter. One bad rule fails the whole filter: with
// a rule left out it would let through what it was written to stop.
func readFilter(obj any) reading[model.BGPFilter] {
	o := obj.(*object)
	r := newReader("BGPFilter", &o.ObjectMeta)
	var spec v3.BGPFilterSpec
	r.spec(o, &spec)
	return finish(r, model.BGPFilter{
		Name:     o.Name,
		ExportV4: r.rules("spec.exportV4", spec.ExportV4, netip.Addr.Is4),
		ImportV4: r.rules("spec.importV4", spec.ImportV4, netip.Addr.Is4),
		ExportV6: r.rules("spec.exportV6", spec.ExportV6, netip.Addr.Is6),
		ImportV6: r.rules("spec.importV6", spec.ImportV6, netip.Addr.Is6),
	})
}

func (r *reader) rules(field string, rules []v3.BGPFilterRule, family func(netip.Addr) bool) []model.FilterRule {
	out := make([]model.FilterRule, 0, len(rules))
	for i := range rules {
		out = append(out, r.rule(fmt.Sprintf("%s[%d]", field, i), &rules[i], family))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func (r *reader) rule(field string, rule *v3.BGPFilterRule, family func(netip.Addr) bool) model.FilterRule {
	out := model.FilterRule{
		Source: rule.Source, Interface: rule.Interface, PeerType: rule.PeerType,
		Priority: rule.Priority, Accept: rule.Action == "Accept",
	}
	r.oneOf(field+".action", rule.Action, "Accept", "Reject")
	if rule.CIDR != "" {
		out.CIDR = r.prefix(field+".cidr", rule.CIDR)
		out.MatchOperator = r.oneOf(field+".matchOperator", rule.MatchOperator, "Equal", "NotEqual", "In", "NotIn")
		if out.CIDR.IsValid() && !family(out.CIDR.Addr()) {
			r.fail(field+".cidr", "%s is of the other address family", rule.CIDR)
		}
	}
	if rule.CIDR == "" && rule.MatchOperator != "" || rule.CIDR != "" && rule.MatchOperator == "" {
		r.fail(field+".matchOperator", "cidr and matchOperator go together: set both or neither")
	}
	if p := rule.PrefixLength; p != nil {
		out.MinLength, out.MaxLength = p.Min, p.Max
	}
	if c := rule.Communities; c != nil {
		for _, v := range c.Values {
			out.Communities = append(out.Communities, string(v))
		}
	}
	out.ASPathPrefix = asns(rule.ASPathPrefix)
	for j := range rule.Operations {
		out.Operations = append(out.Operations, operation(&rule.Operations[j]))
	}
	return out
}

func operation(op *v3.BGPFilterOperation) model.FilterOperation {
	var out model.FilterOperation
	if op.AddCommunity != nil {
		out.AddCommunity = string(op.AddCommunity.Value)
	}
	if op.PrependASPath != nil {
		out.PrependASPath = asns(op.PrependASPath.Prefix)
	}
	if op.SetPriority != nil {
		out.SetPriority = &op.SetPriority.Value
	}
	return out
}

func asns(list []uint32) []model.ASN {
	var out []model.ASN
	for _, n := range list {
		out = append(out, model.ASN(n))
	}
	return out
}
