// Package felix decides what the kernel of one node has to say: its routes,
// tunnels, packet rules, sysctls and MTU. Desired turns everything a node knows
// into a State, a value that the reconcilers below this folder make true.
//
// It is for deciding only. It has no clock, does no I/O, keeps no memory and
// never looks at the kernel: what it knows of it comes in as a model.Host.
// Equal inputs give equal, equally ordered outputs. What cannot be honoured
// comes back as model.Problem values beside the State; the rest of the State
// stands.
//
// Kernel and wire footprint: none of its own. The State it returns is the whole
// footprint of the reconcilers: routes of the main table with protocol
// model.RouteProtocol, the devices tunl0, vxlan.calico and vxlan-v6.calico, the
// nftables table "inet muslin", and the sysctls it names.
//
// How does a fresh process recognise this as ours? By those same numbers and
// names; each reconciler's package doc has the details.
package felix
