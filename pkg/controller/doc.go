// Package controller does what one process has to do for the whole cluster: it
// makes the default objects that are absent, says on IPPools, BGPPeers,
// BGPConfigurations and BGPFilters what Muslin makes of them, and frees the
// addresses and blocks of nodes that were deleted.
//
// One of any number of replicas works at a time, chosen by a Lease. What to
// write is decided by pure functions over what package kube has read; only
// differences are written. It never refuses or changes a user's spec, and the
// agents do not need it to forward packets.
//
// Wire footprint: conditions Allocatable of IPPools and Accepted of the other
// three kinds, in their status subresource; objects named default and
// default-ipv4-ippool or default-ipv6-ippool, made once; IPAM objects of nodes
// that do not exist; Lease muslin-system/muslin-controller. A fresh process recognises its conditions by
// their type and leaves those of other types as they are.
package controller
