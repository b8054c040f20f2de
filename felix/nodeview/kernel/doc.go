// Package kernel reads what the kernel of this node has, for package nodeview:
// the main table, links, neighbours, the base chains of nftables, and the fate
// of an ICMP echo.
//
// It never changes anything. Kernel footprint: netlink dumps, and one raw
// socket while a probe lasts; nothing stays.
package kernel
