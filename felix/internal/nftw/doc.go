// Package nftw writes nftables tables: a Table is a value, and a Writer makes one
// table of the kernel that value, in one transaction for each change (two where a set of intervals is new).
//
// It decides nothing, knows no felix.State, and touches no other table than the one it
// was made for. Footprint: that table, with a chain "generation" that no packet
// passes. Each rule carries as user data a digest of its chain, over the expressions as
// the kernel gets them, with its place. Where these, the hooks and the elements agree
// with what is wanted nothing is written, whichever process wrote it.
package nftw
