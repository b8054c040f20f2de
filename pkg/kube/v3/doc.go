// Package v3 is the shape of the projectcalico.org/v3 objects that Muslin
// serves as native CRDs.
//
// It is the source the CRDs in manifests/crds are generated from. Specs are
// Calico's own Go types wherever they exist, embedded, plus the fields that
// newer Calico releases have and the pinned module lacks; IPAMBlock and
// IPAMHandle, which the module does not have at all, are written out here with
// the same JSON. It never decides and never talks to a server.
//
// Kernel and wire footprint: none. The objects live in API group
// projectcalico.org, version v3, all cluster-scoped.
//
// The kinds are generated under a group name of their own and renamed by
// hack/crdgen, because the embedded package declares the same kinds.
//
// +groupName=crdgen.projectcalico.org
// +versionName=v3
package v3

//go:generate go run ../../../hack/crdgen -root ../../..
