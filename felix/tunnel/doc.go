// Package tunnel makes the tunnel devices of a felix.State true: tunl0 for IPIP,
// vxlan.calico and vxlan-v6.calico for VXLAN, with their addresses, MTU and, for
// VXLAN, a permanent neighbour and forwarding entry for every other node.
//
// It writes no route: a route over a tunnel enters the State once the device is
// up. A device that is no longer wanted stays for a while, until no route of
// ours goes over it and other nodes had time to stop sending, so that a change
// of a pool's encapsulation loses no packet.
//
// A VXLAN device whose VNI or port is to change has an heir beside it ("vxlan.next",
// "vxlan-v6.next") that takes packets at once, and its name once the other nodes
// had time to make theirs; it stays as the predecessor ("vxlan.last",
// "vxlan-v6.last") until they had time to stop sending to it.
//
// Kernel footprint: those devices with rp_filter=2, their addresses, and
// permanent entries on them. tunl0 comes with the ipip module and cannot be
// deleted; it is set down and stripped.
//
// How does a fresh process recognise this as ours? By the device's name and the
// alias "muslin:tunnel". A device of that name without the alias is taken over
// when it is wanted (it is Calico's), and left alone when it is not.
package tunnel
