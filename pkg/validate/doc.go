// Package validate finds what is wrong between objects: what no schema can see
// in one object alone.
//
// It gives problems, each naming object, field and what to do, and never
// refuses anything: the controller writes them as conditions, and whoever uses
// the objects leaves out the offending part. It is pure; it reads no clock.
//
// Kernel and wire footprint: none.
package validate
