// Package netpol translates what network policy is decided from, Kubernetes'
// objects, Calico's and those of the Network Policy API, into the nouns of pkg/model.
//
// It is for translating only: it has no clock and does no I/O, so that goldens,
// tools and the agent read an object the same way. What it cannot read becomes a
// model.Problem with the field's path; a rule of which anything cannot be read
// allows nothing, and if it denies, everything it could deny.
//
// Wire footprint: none; package kube does the watching.
package netpol
