// Package nodeaddr says which address of a node BGP and the tunnels use, and who
// chose it.
//
// An address comes from a person, who sets Calico's annotation
// projectcalico.org/IPv4Address (IPv6Address) on the Node, or it is detected by
// the node's agent with a Method, in the spelling of Calico's
// IP_AUTODETECTION_METHOD. The agent writes the same annotation, because other
// nodes and Calico's tools read it, and beside it a mark with the method and the
// value that it wrote. An annotation that is what its mark says is the agent's
// and follows detection; any other is a person's and stays.
//
// It is pure: values in, values out. Kernel and wire footprint: none; on the
// Node the annotations named here.
package nodeaddr
