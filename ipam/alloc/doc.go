// Package alloc assigns addresses out of a node's blocks, and claims blocks for it.
// This page is the reader's guide to the algorithm; what is stored stands in
// package ipam.
//
// # Claiming a block (grow.go, claim.go)
//
// (1) create the affinity, pending; (2) create the block; (3) confirm the
// affinity. Only a confirmed block is assigned from and announced. Whoever loses
// at (2) deletes the affinity and tries the next block. A node looks for a free
// block in an order of its own (walk.go) that begins at the hash of its name,
// by reading a few at a time; that costs no list, whatever the size of the
// pool, while one block in ten is free. In a fuller pool it reads windows of a
// few hundred names each, from where its own order leads it (window.go), and
// claims one that is missing there; only where hardly one in a thousand is free
// are all names listed, once. An index kept by a watch was the alternative: it
// would make every node of a large cluster hold and follow every block, for an
// operation that a node does a few times in its life.
//
// When no block is free, one that another node has had empty for a minute is
// asked for (vacate.go): by a pending affinity beside the other's, which only the
// controller may take away (affinity.go): it marks that pending deletion, deletes
// the block and then the affinity. When there is none, addresses are borrowed out
// of others' blocks (borrow.go), unless strictAffinity forbids it. A pool that
// turned out to be full is skipped without a look for a few seconds.
//
// # Assigning (assign.go, plan.go, execute.go, page.go)
//
// The node's own blocks are in memory, from a watch and from the node's own
// writes. A request sets room aside in one, and then two writes go out
// together: the handle, and the block. Requests that meet at a block share its
// write: the first one there leads and writes for all that have gathered. A
// borrowed address is different: its handle is written first, because after a
// crash nothing else leads to it.
//
// Every step can be repeated. An operation on a block states what shall hold
// ("this handle has one address more than before"), so it may run again on a
// fresh copy after a conflict. When the outcome of a write is not learned, the
// block is read again, and from then on until a write succeeds one is made even
// if there is nothing to change: that fences off the lost one, should it still
// be under way. A failed request takes back what it wrote, now or, when the
// datastore is away, later.
//
// Releasing writes the blocks first and then deletes the handle, so that
// whoever releases again after a crash finds the rest.
//
// # Starting and repairing (watcher.go, repair.go, debt.go)
//
// How does a fresh process recognise what is its own? By the node's name in
// the affinities and blocks. A pending affinity with a block of the node's is
// confirmed, one without is deleted; a block without affinity gets one; a block
// that seems about to be taken over is taken back after a while. Owners that
// are gone are not released here: Allocations lists what is assigned, and the
// agent, which knows the cluster's pods too, releases what none of them has.
//
// # What is in use (live.go)
//
// The truth about addresses is the endpoints that are there, not the blocks:
// objects get lost, are put back to an older version, or are restored with the
// whole store. SetLive tells which addresses this node's endpoints have. None of
// them is given to another owner, and whenever blocks or endpoints change, what a
// block lacks of them is stored again: in the block, which is claimed anew if
// there is none, or as a borrowed address if it has become another node's. Where
// another owner has it a problem names both. A pod of this node without an
// endpoint gives way; and a pod that asks for a certain address takes it over from
// an older sandbox of its own, wherever that was.
//
// Other nodes' blocks are not watched; those with live addresses are read again
// every minute. Revisions are compared only until the store turns out to have been
// put back (List.Restored, or a read that is older than what was known): then
// whatever is read next counts.
//
// # Beside the blocks
//
// Which tunnel addresses a node needs is decided in tunnel.go. ReleaseAddrs
// (collect.go) and ReleaseAffinity (affinity.go) are for the cluster's collector
// of garbage, which is bound to no node.
//
// # What it never does
//
// It does not log, and imports nothing but ipam, the model, the selector language,
// task and the standard library. It never lists anything to assign out of a block with
// room. Kernel footprint: none. Wire footprint: the objects of package ipam, by
// way of an ipam.Store (package kubestore).
//
// Calico's own allocator counts a handle by what was requested, and leaves the
// count behind when it retries; both leave orphaned handles. It returns an
// error at maxBlocksPerHost where it could borrow, and walks a full pool to its
// end each time. None of this is repeated here.
package alloc
