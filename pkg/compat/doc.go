// Package compat knows what Muslin makes of each kind, field, annotation and CNI
// key of Calico's: whether it has an effect, and if not what to do instead.
//
// One table says it, for the conditions and events of objects, for muslinctl
// compat and for docs/compat.md. It is pure: objects go in, problems come out.
// It never judges whether a value is right; the readers of pkg/kube do. Kernel
// and wire footprint: none.
package compat
