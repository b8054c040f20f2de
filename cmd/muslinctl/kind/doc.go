// Package kind is the static table of the kinds that muslinctl knows: names and
// aliases as calicoctl takes them, where the API server has them, their columns
// and their fields.
//
// The table replaces discovery: a known kind costs no round trip. It is pure: it
// talks to nobody. Kernel and wire footprint: none.
package kind
