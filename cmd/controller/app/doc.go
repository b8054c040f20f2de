// Package app does what one process has to do for the whole cluster: it
// makes the objects of the seed and the default ones that are absent, says on IPPools, BGPPeers,
// BGPConfigurations and BGPFilters what Muslin makes of them, frees what deleted
// nodes held, collects addresses, handles and blocks that nobody needs any more
// on nodes that live, takes an empty block from a node when another one claims it,
// gives Services of type LoadBalancer their addresses, keeps a HostEndpoint of each
// node where that is asked for, and lets a deleted pool go when it is empty.
//
// One of any number of replicas works at a time, chosen by a Lease. What to
// write or release is decided by pure functions over what was read (changes,
// evaluate, finalizers, package loadbalancer); only differences are written. It never refuses or changes
// a user's spec, and the agents do not need it to forward packets.
//
// An address that a pod has by its status, and that has not finished, is never
// released, whatever node the pod is on and whoever the owner on paper is
// (function fateOf). Of a living node only what has been seen without an owner
// over a grace goes (function judge): an address whose pod is gone, finished,
// elsewhere or has other addresses; a handle without addresses; an empty block
// beside another one, or of no pool that selects the node. Addresses without a
// pod, such as a tunnel's, are their node's own business while it lives. An
// address that the pod of its owner's name asks for on another node goes at once.
//
// Of a deleted node an address goes a minute after its pod has left the API,
// which the cluster deletes itself; a tunnel's once no pod is bound to the node,
// and blocks and affinities last: a node that is back by then finds them. Every
// release names the sequence number it was decided upon, so that what was
// assigned anew meanwhile stays. A crash at any point leaves what a later survey
// finds again.
//
// Wire footprint: conditions Allocatable of IPPools and Accepted of the other
// three kinds, in their status subresource; objects named default and
// default-ipv4-ippool or default-ipv6-ippool, made once; HostEndpoints with label
// projectcalico.org/created-by: calico-kube-controllers and a name that ends with
// -auto-hep, those of nodes; the objects that ConfigMap
// muslin-seed names, and that ConfigMap's annotation muslin.io/seeded, by which a fresh
// process knows what has been dealt with (package seed); finalizer
// projectcalico.org/ippool-finalizer of IPPools that have blocks, and with it
// ClusterRole and ClusterRoleBinding muslin-controller-finalizer, owned by the
// CRD of IPPools; writes and deletes of IPAM objects; Role
// muslin-system/muslin-passwords, which names the Secrets that agents read; status.loadBalancer of Services
// and events on them; Lease muslin-system/muslin-controller. It watches Services, and
// pods of all nodes, of which it keeps about 250 bytes each.
//
// A fresh process recognises its conditions by their type and leaves those of
// other types as they are, and its finalizer by name. What looked like garbage
// to its predecessor it has to see anew: the grace starts again.
package app
