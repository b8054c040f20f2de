// Package nft makes a felix.Ruleset true: the nftables table "inet muslin", and
// nothing outside it.
//
// It never touches another table, never uses iptables, and decides nothing:
// which pools are masqueraded and what a pod may send is in the Ruleset.
//
// Kernel footprint: the table "inet muslin" with the chains prerouting (raw
// priority: the pods' check, before every packet), from-pod, input (for what is
// for the node), from-pod-to-node (what pods may send it), tunnelled, services
// or, to reject, forward (service ranges that nobody serves), postrouting (NAT,
// right after srcnat), and floating-prerouting and floating-output (floating
// addresses, right before dstnat), each only when it has something to do, their
// sets, and a chain "generation" that no packet passes. What only the first
// packet of a connection needs is in chains of the type nat. What is
// to be written is one transaction: chains whose rules differ, elements of sets
// (pods come and go as such), or the whole table where it has other sets.
//
// How does a fresh process recognise this as ours? By the table's name. Each
// rule carries as user data a digest of its chain, over the expressions as the
// kernel gets them, with its place; the comment of the rule in "generation" is a
// digest of the kinds of sets. Where these, the hooks and the elements agree with
// what is wanted, nothing is written, whichever version wrote it.
package nft
