package kube

import (
	v3 "github.com/muslin-net/muslin/pkg/kube/v3"
	"github.com/muslin-net/muslin/pkg/model"
)

// readAffinity translates a BlockAffinity. One that is being deleted is not
// good: it counts as absent.
func readAffinity(obj any) reading[model.Block] {
	o := obj.(*object)
	r := newReader("BlockAffinity", &o.ObjectMeta)
	var spec v3.BlockAffinitySpec
	r.spec(o, &spec)
	out := model.Block{CIDR: r.prefix("spec.cidr", spec.CIDR), State: model.BlockState(spec.State)}
	if spec.Type == "" || spec.Type == "host" {
		out.Node = model.NodeName(spec.Node)
	}
	if out.State == "" {
		out.State = model.BlockConfirmed // as Calico reads rows from before there were states
	}
	if spec.Deleted {
		out.State = model.BlockPendingDeletion
	}
	return finish(r, out)
}

// stripObject drops what no translation reads.
func stripObject(obj any) (any, error) {
	if o, ok := obj.(*object); ok {
		o.ManagedFields = nil
		delete(o.Annotations, "kubectl.kubernetes.io/last-applied-configuration")
	}
	return obj, nil
}
