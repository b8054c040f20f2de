// Package gobgp speaks BGP: it holds one embedded GoBGP server and makes it do
// what a bgp.Config says. It is the only importer of osrg/gobgp.
//
// A Speaker has two faces that never call each other. Told what to say
// (Apply), it compares the whole configuration with the one in force and
// changes the difference: paths are in the RIB before peers are added, so that
// a peer's first full table is complete; policies change by soft
// reconfiguration, so no session is reset; a change of identity resets that
// peer alone; only another AS number, router id or listening socket restarts
// the server. Asked what was heard, it answers with Learned, Peers and
// Converged.
//
// It never touches the kernel's routing tables and decides nothing: what to
// announce, to whom, and what to accept is package bgp's.
//
// # Wire footprint
//
// TCP port 179 (or bgp.Config.ListenPort) in the network namespace of the
// process; it needs CAP_NET_BIND_SERVICE for that and CAP_NET_ADMIN for TCP MD5
// signatures and TTL security. UDP port 3784 for BFD (RFC 5881). GoBGP opens
// no gRPC port.
//
// # Restarts
//
// A speaker that ends says nothing: peers see the connection close, keep the
// routes and wait (RFC 4724). Whether a fresh process restarts or starts for
// the first time it cannot see from BGP; Options.Restarting tells, and whoever
// writes the kernel's routes knows. Restarting sets the Restart State and
// Forwarding State bits, without which peers drop the old routes, and makes
// GoBGP hold its first updates back until all peers have sent theirs, for at
// most Options.Deferral, so a dead peer holds nothing up.
package gobgp
