// Package podlink keeps the node's ends of the pods' links as they were made:
// up, with the gateway's IPv6 address and the permanent neighbour entries, which
// the kernel takes away when a link goes down; it gives those of pods that speak
// BGP the node's address of the session; and it gives both ends of a running pod
// the MTU that the node has come to. A pod is no router to the node: what it gave
// its link by router advertisements is taken away.
//
// It never makes or deletes a link (felix/pod does) and never writes a route.
// What is as it should be is not touched.
//
// Kernel footprint: the state, MTU, address fe80::ecee:eeff:feee:eeee, other host
// addresses (/32, /128), neighbour entries, rp_filter of IPv4, and accept_ra and
// accept_redirects of IPv6 of the links that felix.State.Pods names, and the MTU of their other ends. A pod's namespace is looked for below Options.Namespaces by
// the number that the kernel knows it by; one that is not found keeps the MTU
// of both ends.
//
// How does a fresh process recognise this as ours? The State names the links;
// whoever made it knows them by their alias (felix/pod).
package podlink
