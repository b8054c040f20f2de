// Package acceptance judges the data plane as a whole: a few nodes in network
// namespaces, each with felix.Desired and every reconciler below felix, pods
// plugged in, and traffic that must not lose a packet while things change.
//
// It holds tests alone, and is the one place below felix where the rooms meet.
// Tests of IPIP have the build tag vmtest: they are run on a kernel that has
// such devices, by the tests of hack/vm. Footprint: network namespaces that end
// with the test.
package acceptance
