// Package explain walks the way of a packet to an address, from who owns the
// address to the asker's kernel and a probe, and names the first link that is
// broken and the object to change.
//
// Beside that it says what network policy decides about a connection, out of the
// objects, by felix/policy (Judge, TellPolicy).
//
// It is pure: Facts go in, a Story comes out. It never asks anybody. Kernel and
// wire footprint: none.
package explain
