package kube

import (
	"slices"

	"github.com/muslin-net/muslin/pkg/kube/netpol"
	"github.com/muslin-net/muslin/pkg/model"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// clusterPolicies is the resource of ClusterNetworkPolicies.
const clusterPolicies = "clusternetworkpolicies"

// The versions of the Network Policy API, the preferred one first. They are the
// same but for their names, and a server has one or both.
var policyVersions = [2]schema.GroupVersion{
	{Group: "policy.networking.k8s.io", Version: "v1beta1"},
	{Group: "policy.networking.k8s.io", Version: "v1alpha2"},
}

// The CRDs of the API server.
var (
	crdVersion = schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"}
	crdKind    = "CustomResourceDefinition"
)

// clusterTable makes the table of ClusterNetworkPolicies. Their CRD is not part of
// Muslin, so it is watched, and they are only while it is there: nobody asks the
// server again and again for what it does not have.
func (p *policies) clusterTable(c *Cluster) *table[knownPolicy] {
	name := fields.OneTermEqualSelector("metadata.name", clusterPolicies+"."+policyVersions[0].Group).String()
	crds := policyTable(c, feed{client: c.crds, resource: "customresourcedefinitions", expect: &object{}, fields: name}, stripCRD, readCRD)
	f := feed{client: c.policy[0], older: c.policy[1], resource: clusterPolicies, expect: &object{}}
	t, s := optionalTable(c, f, stripObject, readClusterPolicy)
	p.needCluster = newDemand(c, func() bool { return len(crds.rows) > 0 })
	p.needCluster.aside, p.needCluster.sources = true, []source{s}
	p.needCluster.clear = func() {
		t.clear()
		p.note()
	}
	return t
}

// stripCRD leaves of a CRD that it is there.
func stripCRD(obj any) (any, error) {
	if o, ok := obj.(*object); ok {
		o.ManagedFields, o.Annotations, o.Spec, o.Status = nil, nil, nil, nil
	}
	return obj, nil
}

func readCRD(any) reading[struct{}] { return reading[struct{}]{ok: true} }

func readClusterPolicy(obj any) reading[knownPolicy] {
	o := obj.(*object)
	value, problems, ok := netpol.Cluster(o.Name, o.Spec)
	nodes := slices.ContainsFunc(value.EgressRules, func(r model.PolicyRule) bool { return r.Destination.Nodes != nil })
	return reading[knownPolicy]{value: knownPolicy{Policy: &value, nodes: nodes}, ok: ok, problems: problems}
}
