package link

import (
	"golang.org/x/sys/unix"

	"encoding/binary"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

var groups = []int{
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
}

// filter drops, in the kernel, notifications of routes with our own protocol.
func filter(uint32) []unix.SockFilter {
	kind := func(v uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
	}
	return []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 4}, // nlmsg_type
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_NEWROUTE), Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: kind(unix.RTM_DELROUTE), Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 21}, // rtm_protocol
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: model.RouteProtocol, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0},
		{Code: unix.BPF_RET | unix.BPF_K, K: 0xffffffff},
	}
}

// event takes a notification into the table and asks for a new Host.
func (w *Watcher) event(m nl.Message) {
	switch m.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		w.mark(func() {
			before, after, ok := w.table.linkMessage(m)
			// IPv4 routes come and go with their link, unannounced.
			if ok && before.AdminUp != after.AdminUp && w.routed(before.Index, after.Index) {
				w.staleRoutes = true
			}
		})
	case unix.RTM_NEWADDR:
		w.mark(func() { w.table.addressMessage(m) })
	case unix.RTM_DELADDR:
		w.mark(func() {
			w.table.addressMessage(m)
			if len(m.Data) >= unix.SizeofIfAddrmsg && w.routed(int(nl.Uint32(m.Data[4:]))) {
				w.staleRoutes = true
			}
		})
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		if rt, h, ok := nl.ParseRoute(m.Data); ok && foreign(rt, h) {
			w.mark(func() { w.staleRoutes = true })
		}
	}
}

// routed reports whether a route of somebody else's goes over one of the links.
func (w *Watcher) routed(indexes ...int) bool {
	for _, r := range w.table.routes {
		for _, i := range indexes {
			if r.LinkIndex == i {
				return true
			}
		}
	}
	return false
}
