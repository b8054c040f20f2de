// Package radv sends router advertisements (RFC 4861) on the links on which BGP
// is spoken with unnumbered routers: FRR and what is made of it (Cumulus, SONiC)
// learn from them whom `neighbor swp1 interface remote-as external` means, and
// refuse the session before.
//
// An advertisement says that the node is here, with its link-layer address, and
// nothing else: its lifetime is 0, so that nobody takes the node for a default
// router, and it names no prefix. One goes out when a link comes up, then every
// ten seconds, and to each that solicits.
//
// It never believes an advertisement and never sends on a link that
// felix.State.Advertised does not name.
//
// Kernel footprint: one raw ICMPv6 socket, which joins ff02::2 on those links.
// Wire footprint: ICMPv6 type 134 to ff02::1 and to those that solicit. How does a
// fresh process recognise this as ours? There is nothing to: what was said is to
// no effect that has to be taken back (RFC 4861 section 6.2.5).
package radv
