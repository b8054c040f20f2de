package kube

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// object is any object of a CRD, as those of projectcalico.org/v3, with its spec
// unread. Reading the
// spec later, one object at a time, keeps a bad object from failing the list it
// comes in.
type object struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec,omitempty"`
	Status            json.RawMessage `json:"status,omitempty"`
}

type objectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []object `json:"items"`
}

func (o *object) DeepCopyObject() runtime.Object {
	out := &object{TypeMeta: o.TypeMeta, Spec: slices.Clone(o.Spec), Status: slices.Clone(o.Status)}
	o.DeepCopyInto(&out.ObjectMeta)
	return out
}

func (l *objectList) DeepCopyObject() runtime.Object {
	out := &objectList{TypeMeta: l.TypeMeta, Items: make([]object, 0, len(l.Items))}
	l.DeepCopyInto(&out.ListMeta)
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*object))
	}
	return out
}

// conditions reads the conditions of the object's status; a status that does
// not parse has none.
func (o *object) conditions() []metav1.Condition {
	var status struct {
		Conditions []metav1.Condition `json:"conditions"`
	}
	if len(o.Status) == 0 || json.Unmarshal(o.Status, &status) != nil {
		return nil
	}
	return status.Conditions
}
