// Package ipamview answers questions about addresses: how full pools and blocks
// are, who has an address, and whether blocks, handles, affinities, nodes and
// pods agree with one another.
//
// It is pure: a Survey goes in, tables and findings come out. It never reads or
// writes the datastore. Kernel and wire footprint: none.
package ipamview
