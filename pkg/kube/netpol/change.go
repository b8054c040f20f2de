package netpol

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
	calico "github.com/projectcalico/api/pkg/apis/projectcalico/v3"
	networking "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is an object of any API that policies are written in.
type Object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
}

// Groups of the APIs.
const (
	groupKubernetes = "networking.k8s.io/"
	groupCluster    = "policy.networking.k8s.io/"
	groupCalico     = "projectcalico.org/v3"
	groupCalicoOld  = "crd.projectcalico.org/v1"
)

// staged are the kinds that say what others would be.
var staged = map[string]string{
	"StagedNetworkPolicy":           model.KindPolicy,
	"StagedGlobalNetworkPolicy":     model.KindGlobalPolicy,
	"StagedKubernetesNetworkPolicy": model.KindKubernetesPolicy,
}

// Staged gives the problems of a staged policy: of what it stands for, and its own. ok is
// false if it cannot be read.
func Staged(o Object) (problems []model.Problem, ok bool) {
	view, problems := Change(model.PolicyView{}, o)
	return problems, view.Policies.Len() > 0 || len(problems) == 0
}

// StagedKinds are the kinds of staged policies.
func StagedKinds() []string { return slices.Sorted(maps.Keys(staged)) }

// Speaks reports whether an object of an API is one that policies are made of.
func Speaks(apiVersion, kind string) bool {
	switch {
	case strings.HasPrefix(apiVersion, groupKubernetes):
		return kind == "NetworkPolicy"
	case strings.HasPrefix(apiVersion, groupCluster):
		return kind == model.KindClusterPolicy
	case apiVersion != groupCalico && apiVersion != groupCalicoOld:
		return false
	}
	return slices.Contains([]string{model.KindPolicy, model.KindGlobalPolicy, "Tier", "NetworkSet", "GlobalNetworkSet", model.KindHostEndpoint}, kind) || staged[kind] != ""
}

// Namespaced reports whether objects of a kind that Speaks knows are in namespaces.
func Namespaced(kind string) bool {
	return slices.Contains([]string{model.KindPolicy, "NetworkSet", "StagedNetworkPolicy", "StagedKubernetesNetworkPolicy"}, kind)
}

// Change gives the view as it would be with an object applied, and the problems of the
// object. A staged policy counts as what it stands for: by its stagedAction the
// policy of its name is set (the default) or deleted. An object that cannot be
// read changes nothing.
func Change(view model.PolicyView, o Object) (model.PolicyView, []model.Problem) {
	view.Revision = 0
	ref := model.Ref{Kind: o.Kind, Namespace: o.Namespace, Name: o.Name}
	if strings.HasPrefix(o.APIVersion, groupKubernetes) {
		ref.Kind = model.KindKubernetesPolicy
	}
	if of := staged[o.Kind]; of != "" {
		return stage(view, ref, of, o)
	}
	switch o.Kind {
	case "Tier":
		value, problems, ok := Tier(o.Name, o.Spec)
		if ok {
			view.Tiers = put(view.Tiers, value, func(t model.Tier) bool { return t.Name == o.Name })
		}
		return view, problems
	case "NetworkSet", "GlobalNetworkSet":
		value, problems, ok := NetworkSet(ref, o.Labels, o.Spec)
		if ok {
			view.NetworkSets = put(view.NetworkSets, value, func(s model.NetworkSet) bool { return s.Object == ref })
		}
		return view, problems
	case model.KindHostEndpoint:
		value, problems, ok := HostEndpoint(o.Name, o.Labels, o.Spec)
		if ok {
			view.HostEndpoints = put(view.HostEndpoints, value, func(e model.HostEndpoint) bool { return e.Object == ref })
		}
		return view, problems
	}
	return enforce(view, ref, o)
}

// enforce sets a policy.
func enforce(view model.PolicyView, ref model.Ref, o Object) (model.PolicyView, []model.Problem) {
	var value model.Policy
	var problems []model.Problem
	var ok bool
	switch ref.Kind {
	case model.KindKubernetesPolicy:
		p := networking.NetworkPolicy{ObjectMeta: o.ObjectMeta}
		if err := json.Unmarshal(o.Spec, &p.Spec); err != nil {
			return view, []model.Problem{unreadable(ref, err)}
		}
		value, problems, ok = Kubernetes(&p)
	case model.KindClusterPolicy:
		value, problems, ok = Cluster(o.Name, o.Spec)
	default:
		value, problems, ok = Calico(ref, o.Spec)
	}
	if ok {
		view.Policies = view.Policies.With([]*model.Policy{&value}, nil)
	}
	return view, problems
}

// stage does what a staged policy says. Learn and Ignore change nothing.
func stage(view model.PolicyView, ref model.Ref, of string, o Object) (model.PolicyView, []model.Problem) {
	var s struct {
		StagedAction calico.StagedAction `json:"stagedAction"`
	}
	if err := json.Unmarshal(o.Spec, &s); err != nil {
		return view, []model.Problem{unreadable(ref, err)}
	}
	enforced := ref
	enforced.Kind = of
	switch s.StagedAction {
	case "", calico.StagedActionSet:
		view, problems := enforce(view, enforced, o)
		for i := range problems {
			problems[i].Object = ref
		}
		return view, problems
	case calico.StagedActionDelete:
		view.Policies = view.Policies.With(nil, []*model.Policy{{Object: enforced}})
	case calico.StagedActionLearn, calico.StagedActionIgnore:
	default:
		return view, []model.Problem{{Object: ref, Field: "spec.stagedAction", Reason: "InvalidValue",
			Message: fmt.Sprintf("%q is not one of Set, Delete, Learn, Ignore", s.StagedAction)}}
	}
	return view, nil
}

func unreadable(ref model.Ref, err error) model.Problem {
	return model.Problem{Object: ref, Field: "spec", Reason: "InvalidValue", Message: "cannot be read: " + err.Error()}
}

// put replaces the one of a list that is such, or adds one.
func put[T any](list []T, value T, such func(T) bool) []T {
	return append(slices.DeleteFunc(slices.Clone(list), such), value)
}
