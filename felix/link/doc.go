// Package link reads the node's kernel as far as routing needs it: links, their
// addresses, and the routes of the main table that others wrote. It publishes a
// model.Host and hints when there is a new one.
//
// It never writes to the kernel and never decides what a link or a route is
// good for.
//
// Kernel footprint: two netlink sockets, read only. Notifications of routes
// with our own protocol are filtered in the kernel.
//
// How does a fresh process recognise this as ours? It does not have to: routes
// with model.RouteProtocol are left out of the Host, everything else is in it.
package link
