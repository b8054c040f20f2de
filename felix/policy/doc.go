// Package policy decides which packets the pods of one node may send and
// receive. It turns network policies, and the pods, namespaces and sets of
// addresses that they speak of, into a Program: a value that the kernel's side
// (package felix/policynft) makes true.
//
// It is for deciding only. It has no clock, does no I/O, and never looks at the
// kernel or at the API server. Equal inputs give equal Programs. What cannot be
// honoured comes back as model.Problem values beside the Program, and never opens
// more than was written. Compile is the decision; an Engine is Compile with a memory,
// for who asks again at each change. Program.Decide walks what was decided, as the
// kernel does, and Selecting names the policies that count for a pod.
//
// Kernel and wire footprint: none of its own; felix/policynft has it.
package policy
