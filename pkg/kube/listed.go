package kube

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// named stands for an object in a list that is not whole yet: a reflector, which keeps such a
// list, asks no more of it than the name. Whole objects would be many times what is made of them.
type named struct {
	*metav1.ObjectMeta // noMeta
	namespace, name    string
}

// noMeta answers whatever else is asked.
var noMeta = &metav1.ObjectMeta{}

func nameOf(o metav1.Object) named { return named{noMeta, o.GetNamespace(), o.GetName()} }

// GetNamespace is metav1.Object's.
func (n *named) GetNamespace() string { return n.namespace }

// GetName is metav1.Object's.
func (n *named) GetName() string { return n.name }

// listed is a row of a table in such a list. It has a name and is none: each method of that
// would be another one for each table.
type listed[T any] struct {
	name named
	row  row[T]
}

// GetObjectMeta is metav1.ObjectMetaAccessor's.
func (l *listed[T]) GetObjectMeta() metav1.Object { return &l.name }
