// Package kubestore is the ipam.Store over a Kubernetes API server: blocks,
// affinities and handles are the custom resources IPAMBlock, BlockAffinity and
// IPAMHandle of projectcalico.org/v3, as Calico reads and writes them.
//
// Names and labels are Calico's (package ipam has them). A delete takes two
// steps, as Calico's does: the object is marked with spec.deleted under its
// resourceVersion, and then deleted under its UID; an object found with the
// mark is deleted the rest of the way and counts as absent.
//
// A watch follows one node's objects only: its blocks by the field
// spec.affinity, which the CRD declares as selectable, and its affinities by
// the label that holds the hash of the node's name. Calico has no such field on
// its own CRDs; manifests/crds have it.
//
// A watch begins with a list each time. resourceVersions are compared as numbers
// until a list is older than what was seen before it: then the server's data were
// put back, as etcd from a backup, and the list counts as it is.
//
// Kernel footprint: none. Wire footprint: HTTP/2 to the API server; JSON. What
// is ours is recognised by the node's name in it.
package kubestore
