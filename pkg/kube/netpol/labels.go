package netpol

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/selector"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kubernetesPods selects pods, and no network set or host.
var kubernetesPods = selector.Equal(model.LabelOrchestrator, model.OrchestratorKubernetes)

// ofNamespace selects what is in a namespace.
func ofNamespace(namespace string) *selector.Selector {
	return selector.Equal(model.LabelNamespace, namespace)
}

// labelSelector gives Kubernetes' selector in Calico's terms; each label gets the
// prefix.
func (r *reader) labelSelector(field, prefix string, s *metav1.LabelSelector) (out *selector.Selector, ok bool) {
	var all []*selector.Selector
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		all = append(all, selector.Equal(prefix+k, s.MatchLabels[k]))
	}
	for i, e := range s.MatchExpressions {
		one, err := requirement(prefix, e)
		if err != nil {
			r.warn(field+".matchExpressions["+strconv.Itoa(i)+"]", "%v", err)
			return nil, false
		}
		all = append(all, one)
	}
	return selector.And(all...), true
}

func requirement(prefix string, e metav1.LabelSelectorRequirement) (*selector.Selector, error) {
	key := prefix + e.Key
	switch e.Operator {
	case metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn:
		if len(e.Values) == 0 {
			return nil, fmt.Errorf("%s needs values", e.Operator)
		}
		if e.Operator == metav1.LabelSelectorOpIn {
			return selector.In(key, e.Values...), nil
		}
		return selector.NotIn(key, e.Values...), nil
	case metav1.LabelSelectorOpExists:
		return selector.Has(key), nil
	case metav1.LabelSelectorOpDoesNotExist:
		return selector.Not(selector.Has(key)), nil
	}
	return nil, fmt.Errorf("%q is not one of In, NotIn, Exists, DoesNotExist", e.Operator)
}
