// Package pod plugs pods in: a veth pair with one end in the pod's network
// namespace and the other, named cali…, in the node's. The pod has host
// prefixes and a gateway that is the veth itself (169.254.1.1 and
// fe80::ecee:eeff:feee:eeee), so there is no bridge and no subnet.
//
// It never assigns addresses, never writes a route of the node (felix/route
// does, from the endpoints) and no packet rule, and keeps no file: the kernel is
// the list of what is plugged in.
//
// Kernel footprint, on the node: the veth with MAC ee:ee:ee:ee:ee:ee, per
// interface proxy_arp=1, forwarding=1, send_redirects=0, accept_redirects=0,
// proxy_delay=0, for IPv6 accept_ra=0 and accept_redirects=0, and the
// link-local gateway address without duplicate detection, and a permanent
// neighbour entry for each address of the pod. In the pod: the
// interface with its addresses, a link route and a default route by way of the
// gateway, a permanent neighbour entry for it, and forwarding=0 on the interface
// unless asked otherwise. Nothing is set for a whole namespace. Per-interface
// settings go by netlink; /proc/sys is only written for those of IPv6 that netlink
// cannot set, and where a namespace has IPv6 disabled.
//
// How does a fresh process recognise this as ours? By the link's alias:
// "muslin:<container>/<interface> <addresses> [mac=…] [mtu=…] [noipam=…] [fip=…] [src=…] <namespace>/<pod>".
package pod
