package app

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/compat"
	"github.com/muslin-net/muslin/pkg/kube"
	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// conditionAccepted is the condition of BGP objects and policies: True when every field is in
// force.
const conditionAccepted = "Accepted"

// maxMessage bounds a condition's message, in bytes; the API server takes 32768.
const maxMessage = 4096

// change is an object whose conditions have to be written, and all of them.
type change struct {
	object     kube.Reported
	conditions []metav1.Condition
}

// state is what conditions are decided from.
type state struct {
	objects  []kube.Reported
	pools    []validate.Pool
	snapshot model.Snapshot
	policies model.PolicyView
	problems []model.Problem // from reading the objects
	nodes    *validate.Nodes // as the pass before left them
}

// changes gives the objects whose conditions are not as they should be, and how
// many objects are not wholly in force. It is pure: now is the time of a
// transition.
func changes(s state, now time.Time) (out []change, notTrue int) {
	verdicts := validate.Pools(s.pools)
	byObject := map[model.Ref][]model.Problem{}
	s.nodes.See(s.snapshot.Nodes)
	for _, p := range slices.Concat(s.problems, validate.BGP(s.snapshot, s.nodes), bgp.Misread(s.snapshot), validate.Policies(s.policies),
		validate.Placed(s.snapshot, s.policies.HostEndpoints, s.nodes), unannounced(s)) {
		byObject[p.Object] = append(byObject[p.Object], p)
	}
	for _, o := range s.objects {
		var want metav1.Condition
		if o.Ref.Kind == "IPPool" {
			want = allocatable(verdicts[o.Ref.Name], byObject[o.Ref])
		} else {
			want = accepted(o.Ref.Kind, byObject[o.Ref])
		}
		if want.Status != metav1.ConditionTrue {
			notTrue++
		}
		want.ObservedGeneration = o.Meta.Generation
		if next, differs := set(o.Meta.Conditions, want, now); differs {
			out = append(out, change{o, next})
		}
	}
	return out, notTrue
}

// unannounced names the pools for Services that BGP tells nobody of: they work, and
// do not do what they are for.
func unannounced(s state) []model.Problem {
	var ranges []netip.Prefix
	for _, c := range s.snapshot.BGP {
		if c.Name == "default" {
			ranges = c.ServiceLoadBalancers
		}
	}
	var out []model.Problem
	for i := range s.pools {
		p := &s.pools[i].Pool
		if !p.LoadBalancerOnly() || slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Bits() <= p.CIDR.Bits() && r.Contains(p.CIDR.Addr()) }) {
			continue
		}
		out = append(out, model.Problem{
			Object: model.Ref{Kind: "IPPool", Name: p.Name}, Field: "spec.cidr", Reason: compat.ReasonUnsupported,
			Message: "no router hears of its addresses: spec.serviceLoadBalancerIPs of BGPConfiguration default does not have " + p.CIDR.String(),
		})
	}
	return out
}

// allocatable is the condition of a pool. A pool that could not be read has no
// verdict, and its problems speak. A field without effect keeps no address back, nor
// does that no node asks for one.
func allocatable(v validate.Verdict, problems []model.Problem) metav1.Condition {
	c := metav1.Condition{Type: kube.ConditionAllocatable, Status: metav1.ConditionFalse, Reason: v.Reason, Message: v.Message}
	inVain := len(problems) > 0 && !slices.ContainsFunc(problems, func(p model.Problem) bool {
		return p.Reason != compat.ReasonUnsupported && p.Reason != validate.ReasonNoNode
	})
	switch {
	case inVain && v.Allocatable:
		c.Status, c.Message = metav1.ConditionTrue, v.Message+"; "+message(problems)
	case len(problems) > 0 && (v.Allocatable || v.Reason == ""):
		c.Reason, c.Message = problems[0].Reason, message(problems)
	case v.Allocatable:
		c.Status = metav1.ConditionTrue
	}
	return c
}

func accepted(kind string, problems []model.Problem) metav1.Condition {
	if len(problems) == 0 {
		text := "in force"
		if slices.Contains(netpol.StagedKinds(), kind) {
			text = "staged: nothing enforces it"
		}
		return metav1.Condition{Type: conditionAccepted, Status: metav1.ConditionTrue, Reason: "Accepted", Message: text}
	}
	return metav1.Condition{Type: conditionAccepted, Status: metav1.ConditionFalse, Reason: problems[0].Reason, Message: message(problems)}
}

// message joins problems of one object, each with its field.
func message(problems []model.Problem) string {
	lines := make([]string, 0, len(problems))
	for _, p := range problems {
		if p.Field == "" {
			lines = append(lines, p.Message)
			continue
		}
		lines = append(lines, p.Field+": "+p.Message)
	}
	text := strings.Join(lines, "; ")
	return text[:min(len(text), maxMessage)]
}

// set puts want among conditions and reports whether anything but the time of
// transition is new. The time stays while the status stays.
func set(conditions []metav1.Condition, want metav1.Condition, now time.Time) ([]metav1.Condition, bool) {
	want.LastTransitionTime = metav1.NewTime(now)
	i := slices.IndexFunc(conditions, func(c metav1.Condition) bool { return c.Type == want.Type })
	if i < 0 {
		return append(slices.Clone(conditions), want), true
	}
	have := conditions[i]
	if have.Status == want.Status {
		want.LastTransitionTime = have.LastTransitionTime
	}
	if have == want {
		return conditions, false
	}
	next := slices.Clone(conditions)
	next[i] = want
	return next, true
}
