// Package kube is the door to the Kubernetes API: it turns objects into a
// model.Snapshot, and outcomes into status, annotations and events.
//
// A Cluster watches what one node (or the controller) needs, translates every
// object once per change and hands out the whole as a value. An object that
// cannot be read does not stop the others: it becomes a model.Problem, and the
// last good value of that object stays in force. API types do not leave this
// package; its translations are tables of functions without clock or I/O.
//
// It never decides what to do about the cluster, never touches the kernel and
// never lists on a hot path. It uses plain REST clients and reflectors instead
// of a typed clientset, because an agent has to stay small.
//
// Wire footprint of an agent: one watch each for Nodes, Namespaces, this node's
// Pods, IPPools, BGPConfigurations, BGPPeers, BGPFilters, FelixConfigurations,
// IPAMConfigurations, IPReservations and this node's CalicoNodeStatuses, and one
// for each Secret that a BGP password names; Services and EndpointSlices only
// while BGP announces services, every node's BlockAffinities only while the
// route origin check is on. With Options.Policy also NetworkPolicies of both
// APIs, GlobalNetworkPolicies, Tiers and (Global)NetworkSets, every node's Pods
// only while there is a policy, ServiceAccounts and EndpointSlices only while
// one asks for them. It writes nodes/status of its own node (condition
// NetworkUnavailable, projectcalico.org/ annotations), the status of its
// CalicoNodeStatuses, and Events; the controller writes the status subresource
// of the v3 kinds and the default objects that are absent.
// A fresh process recognises what is its own by those names alone and writes
// nothing that is already there.
package kube
