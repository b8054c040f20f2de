// Package cniserver does what the CNI plugin asks for: ADD, DEL, CHECK, STATUS
// and GC as ordered steps over the rooms that know addresses, links, endpoints
// and pods. It knows these rooms by the small interfaces of rooms.go alone.
//
// ADD:
//
//	lock pod and sandbox
//	an older sandbox of the same pod is taken down first
//	Addresses.Assign                stored by the API
//	∥ PodInterfaces.Attach                  once chosen: veth, address, gateway in the pod
//	∥ FormerOwners.Disconnect               no connection of who had the address before is left
//	Endpoints.Put → revision
//	Endpoints.Settled(revision)     host route and policy are in the kernel
//	∥ FormerOwners.HandOver                 other nodes do not take the pod for who had its address
//	answer
//
// Every step has an undo. A failed ADD runs the undos of the steps it began, in
// reverse; DEL runs all of them. They are idempotent, and they stop at the first
// that fails: an address is given back only when nothing can use it any more. An
// ADD of an attachment that stands gives the same answer, and its failure takes
// nothing down.
//
// DEL is recorded on disk, by the plugin itself (package record), and then done,
// again and again until it succeeds. So is a DEL that comes as a call, from a
// plugin that could not write. What a process that died has not done, the next one
// does before it opens the socket. An ADD of the same attachment does it first.
//
// Kernel and wire footprint: an inotify watch of the spool; a unix socket, mode
// 0600, made beside its path and renamed into place; it stays when Run ends, so
// that a plugin is refused at once and reports "try again later". No state of its
// own: attachments are recognised by the rooms (link alias, allocation handle),
// never by this package's memory. Never touches Kubernetes, netlink or BGP.
package cniserver
