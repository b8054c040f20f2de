package kube

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
)

// Annotations of a BGPFilter.
const (
	// AnnotationServiceSelector makes the filter's export rules about the addresses of
	// the Services that this selector has, in Calico's syntax, by their labels,
	// projectcalico.org/name and projectcalico.org/namespace.
	AnnotationServiceSelector = "muslin.io/service-selector"
	// AnnotationAggregation and AnnotationAggregationV6 are the length of the prefix that
	// is announced in place of such an address: 1 to 32, 1 to 128.
	AnnotationAggregation   = "muslin.io/aggregation-length"
	AnnotationAggregationV6 = "muslin.io/aggregation-length-v6"
)

// interfacePattern is what the CRD allows.
var interfacePattern = regexp.MustCompile(`^[a-zA-Z0-9_.*:@-]{1,16}$`)

// readFilter translates a BGPFilter. One bad rule fails the whole filter: with
// a rule left out it would let through what it was written to stop.
func readFilter(obj any) reading[model.BGPFilter] {
	o := obj.(*object)
	r := newReader("BGPFilter", &o.ObjectMeta)
	var spec v3.BGPFilterSpec
	r.spec(o, &spec)
	out := model.BGPFilter{
		Name:     o.Name,
		ExportV4: r.rules("spec.exportV4", spec.ExportV4, model.IPv4),
		ImportV4: r.rules("spec.importV4", spec.ImportV4, model.IPv4),
		ExportV6: r.rules("spec.exportV6", spec.ExportV6, model.IPv6),
		ImportV6: r.rules("spec.importV6", spec.ImportV6, model.IPv6),
	}
	r.byService(ours(o.Annotations), &out)
	return finish(r, out)
}

// byService reads the annotations of a filter, and holds one that selects Services to
// what a node knows of their addresses before it announces them.
func (r *reader) byService(annotations map[string]string, out *model.BGPFilter) {
	for _, key := range sortedKeys(annotations) {
		field, text := "metadata.annotations["+key+"]", annotations[key]
		switch {
		case key == AnnotationServiceSelector && strings.TrimSpace(text) == "":
			r.fail(field, "is empty: want a selector; all() selects all Services")
		case key == AnnotationServiceSelector:
			out.Services = r.selector(field, text)
		case key == AnnotationAggregation:
			out.AggregationLength = r.length(field, text, 32)
		case key == AnnotationAggregationV6:
			out.AggregationLengthV6 = r.length(field, text, 128)
		case strings.HasPrefix(key, "muslin.io/"):
			r.warn(field, "no such annotation of a BGPFilter; known are %s, %s, %s", AnnotationServiceSelector, AnnotationAggregation, AnnotationAggregationV6)
		}
	}
	_, by := annotations[AnnotationServiceSelector]
	switch {
	case !by && out.AggregationLength+out.AggregationLengthV6 > 0:
		r.fail("metadata.annotations["+AnnotationServiceSelector+"]", "is missing: an aggregation length is for the Services that it selects")
	case by && len(out.ImportV4)+len(out.ImportV6) > 0:
		r.fail("spec.import"+map[bool]string{true: "V4", false: "V6"}[len(out.ImportV4) > 0], "a filter with %s is about what nodes announce: put import rules into one without", AnnotationServiceSelector)
	case by:
		r.ofServices("spec.exportV4", out.ExportV4)
		r.ofServices("spec.exportV6", out.ExportV6)
	}
}

func (r *reader) ofServices(field string, rules []model.FilterRule) {
	for i := range rules {
		for _, f := range []struct {
			name string
			set  bool
		}{
			{"source", rules[i].Source != ""},
			{"interface", rules[i].Interface != ""},
			{"communities", len(rules[i].Communities) > 0},
			{"asPathPrefix", len(rules[i].ASPathPrefix) > 0},
			{"priority", rules[i].Priority != nil},
		} {
			if f.set {
				r.fail(fmt.Sprintf("%s[%d].%s", field, i, f.name), "cannot be asked of the address of a Service; leave it out, or take %s away", AnnotationServiceSelector)
			}
		}
	}
}

// length reads the length of a prefix.
func (r *reader) length(field, text string, most int) int {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		r.fail(field, "%q is not a prefix length of 1 to %d", text, most)
		return 0
	}
	return n
}

func (r *reader) rules(field string, rules []v3.BGPFilterRule, family model.Family) []model.FilterRule {
	out := make([]model.FilterRule, 0, len(rules))
	for i := range rules {
		out = append(out, r.rule(fmt.Sprintf("%s[%d]", field, i), &rules[i], family))
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

func (r *reader) rule(field string, rule *v3.BGPFilterRule, family model.Family) model.FilterRule {
	out := model.FilterRule{
		Source: rule.Source, Interface: rule.Interface, PeerType: model.PeerType(rule.PeerType),
		Priority: rule.Priority, Accept: rule.Action == "Accept",
	}
	oneOf(r, field+".action", rule.Action, "Accept", "Reject")
	if rule.CIDR != "" {
		out.CIDR = r.prefix(field+".cidr", rule.CIDR)
		out.MatchOperator = oneOf(r, field+".matchOperator", rule.MatchOperator, model.Equal, model.NotEqual, model.In, model.NotIn)
		if out.CIDR.IsValid() && !family.Has(out.CIDR.Addr()) {
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
	r.ruleShape(field, rule, out)
	for j := range rule.Operations {
		out.Operations = append(out.Operations, operation(&rule.Operations[j]))
	}
	return out
}

// ruleShape holds what the CRD holds too, for objects stored before it did: a
// filter that breaks it is not taken, and the last good one stays in force.
func (r *reader) ruleShape(field string, rule *v3.BGPFilterRule, out model.FilterRule) {
	oneOf(r, field+".source", rule.Source, "RemotePeers")
	oneOf(r, field+".peerType", rule.PeerType, "eBGP", "iBGP")
	if rule.Interface != "" && !interfacePattern.MatchString(rule.Interface) {
		r.fail(field+".interface", "%q is not the name of an interface, in which * may stand for any text", rule.Interface)
	}
	if rule.PrefixLength != nil && rule.CIDR == "" {
		r.fail(field+".prefixLength", "needs cidr")
	}
	if least, most := out.MinLength, out.MaxLength; least != nil && most != nil && *least > *most {
		r.fail(field+".prefixLength", "min %d is greater than max %d", *least, *most)
	}
	if n := len(out.Communities); n > 1 {
		r.fail(field+".communities.values", "holds %d values; one is possible", n)
	}
	for _, c := range out.Communities {
		r.community(field+".communities.values", c)
	}
	if p := rule.Priority; p != nil && *p < 0 {
		r.fail(field+".priority", "%d is negative", *p)
	}
	if len(rule.Operations) > 0 && rule.Action != "Accept" {
		r.fail(field+".operations", "are for action Accept only")
	}
	for j := range rule.Operations {
		r.operationShape(fmt.Sprintf("%s.operations[%d]", field, j), &rule.Operations[j])
	}
}

func (r *reader) operationShape(field string, op *v3.BGPFilterOperation) {
	set := 0
	if op.AddCommunity != nil {
		set++
		r.community(field+".addCommunity.value", string(op.AddCommunity.Value))
	}
	if op.PrependASPath != nil {
		set++
		if len(op.PrependASPath.Prefix) == 0 {
			r.fail(field+".prependASPath.prefix", "names no AS number")
		}
	}
	if op.SetPriority != nil {
		set++
		if op.SetPriority.Value < 0 {
			r.fail(field+".setPriority.value", "%d is negative", op.SetPriority.Value)
		}
	}
	if set != 1 {
		r.fail(field, "set exactly one of addCommunity, prependASPath, setPriority")
	}
}

func (r *reader) community(field, text string) {
	if err := validate.Community(text); err != nil {
		r.fail(field, "%v", err)
	}
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
