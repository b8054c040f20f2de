// Package model holds the nouns that every room of Muslin shares: nodes, pools,
// blocks, BGP objects, learned routes, host links and pod endpoints.
//
// It is for saying the same thing in the same words on both sides of a door.
// It never reads or writes anything, holds no verbs beyond String and
// comparison, and imports nothing but the standard library.
//
// Kernel and wire footprint: none. RouteProtocol is declared here because every
// room that looks at the kernel has to agree on it.
package model
