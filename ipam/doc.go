// Package ipam keeps addresses of workloads as Calico does, in the same
// objects, so that both can work on one datastore. Here are the objects and
// the algebra of blocks; package alloc is the allocator that a node runs.
//
// # What is stored
//
// A pool is cut into blocks of equal size (block.go, blockops.go). A Block says
// of each of its addresses whether it is free, assigned to an owner, or cooling
// down; its free ones form a queue, so that a released address is reused as
// late as possible. An Affinity ties a block to a node. A Handle counts an
// owner's addresses by block, and is the way back from an owner to addresses
// that lie in other nodes' blocks. The times that a block holds are by the clock of
// whoever wrote them, and no wait is measured by these (observer.go). Every write is a compare and swap on one
// object (store.go): there are no transactions, so the order of writes is the
// protocol.
//
// Keys of a stored object that are not known here stay as they are when it is
// written (unknown.go): Calico, or a newer release, has put them there. So does
// "alternate" beside an owner, which Calico's types once had and its objects call
// alternateOwnerAttrs: it is kept and not read.
//
// # Beside the blocks
//
// PodCIDRs (podcidr.go) assigns out of node.spec.podCIDRs where Kubernetes hands
// out the prefixes; it knows no blocks and stores nothing.
//
// # What it never does
//
// It does not log, and imports nothing but the model, the selector language and
// the standard library. Kernel footprint: none. Wire footprint: the objects IPAMBlock,
// BlockAffinity and IPAMHandle, by way of a Store (package kubestore).
package ipam
