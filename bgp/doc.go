// Package bgp decides what a node says over BGP and to whom: from a
// model.Snapshot it makes a Config with the node's identity, its own paths,
// its peers and the policies of both directions.
//
// It is pure: no clock, no socket, no logger; equal snapshots give equal
// configurations, in the same order. It never speaks itself, that is
// bgp/gobgp, and it never looks at the kernel.
//
// One bad object never stops the others: Desired returns what could not be
// honoured as model.Problems beside a configuration that is complete without
// it.
//
// # Where the rules come from
//
// Calico's API and the behaviour of its BIRD configuration: one mesh session a
// pair of nodes and family, explicit peers before mesh peers, route reflectors
// by the node annotation projectcalico.org/RouteReflectorClusterID, export in
// the order "filters, pools with disableBGPExport, communities, own blocks,
// services, pools, nothing else", LOCAL_PREF 2147483647 less the route's
// priority. What Calico's API has no field for is said by annotations with the
// prefix muslin.io/ (see Annotations).
//
// # Wire footprint
//
// None of its own. A speaker that follows Config announces, with the node's
// own address as next hop, exactly the prefixes in Config.Paths, and passes on
// learned prefixes only where a policy accepts them. A fresh process needs no
// memory of what an earlier one announced: the configuration is whole.
package bgp
