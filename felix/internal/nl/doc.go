// Package nl is the one door to netlink for the reconcilers below felix. It
// binds sockets to a network namespace that the caller names, sends many
// requests at once, repeats dumps that the kernel says were interrupted, and
// listens to groups.
//
// It never decides anything, starts no goroutine that outlives a call, and
// leaves no thread in a foreign namespace: a thread that cannot be brought back
// is given up.
//
// Kernel and wire footprint: netlink sockets only. Recognising what is ours is
// the caller's business.
package nl
