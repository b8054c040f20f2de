package route

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// Links and addresses are watched because the kernel takes IPv4 routes away
// with them and says nothing of it.
var groups = []int{
	unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
}

// filter lets pass, in the kernel, what may concern our routes: any link or
// address message; route messages that we did not cause and that either carry
// our protocol or replace a route.
func filter(port uint32) []unix.SockFilter {
	const pass, drop = 0xffffffff, 0
	big16 := func(v uint16) uint32 {
		return uint32(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)))
	}
	big32 := func(v uint32) uint32 {
		return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
	}
	ld := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	jump := func(test uint16, k uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | test | unix.BPF_K, K: k, Jt: yes, Jf: no}
	}
	ret := func(k uint32) unix.SockFilter { return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k} }
	return []unix.SockFilter{
		ld(unix.BPF_H, 4), // nlmsg_type
		jump(unix.BPF_JEQ, big16(unix.RTM_NEWROUTE), 1, 0),
		jump(unix.BPF_JEQ, big16(unix.RTM_DELROUTE), 0, 7),
		ld(unix.BPF_W, 12), // nlmsg_pid: who caused it
		jump(unix.BPF_JEQ, big32(port), 4, 0),
		ld(unix.BPF_B, 21), // rtm_protocol
		jump(unix.BPF_JEQ, model.RouteProtocol, 3, 0),
		ld(unix.BPF_H, 6), // nlmsg_flags
		jump(unix.BPF_JSET, big16(unix.NLM_F_REPLACE), 1, 0),
		ret(drop),
		ret(pass),
	}
}

// Run listens for changes by others and hints through Changed, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	return r.Follow(ctx, r.events, r.event, r.again, func(ctx context.Context) { nl.Every(ctx, r.interval, r.again) })
}

// again has the whole table read and applied again.
func (r *Reconciler) again() {
	r.markStale()
	r.Notify()
}

func (r *Reconciler) interval() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.resync
}

func (r *Reconciler) event(m nl.Message) {
	switch m.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		r.routeEvent(m)
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(m.Data) < unix.SizeofIfInfomsg {
			return
		}
		index := int(nl.Uint32(m.Data[4:]))
		if m.Type == unix.RTM_DELLINK || nl.Uint32(m.Data[8:])&unix.IFF_UP == 0 {
			r.lostLink(index)
		}
	case unix.RTM_DELADDR:
		if len(m.Data) >= unix.SizeofIfAddrmsg {
			r.lostAddress(int(nl.Uint32(m.Data[4:])), nl.ParseAddress(m.Data).Addr())
		}
	}
}

// routeEvent follows what somebody else did to a route of ours.
func (r *Reconciler) routeEvent(m nl.Message) {
	rt, h, ok := nl.ParseRoute(m.Data)
	if !ok {
		return
	}
	k := keyOf(rt)
	r.mu.Lock()
	known, had := r.table.get(k)
	if m.Type == unix.RTM_NEWROUTE && h.Protocol == model.RouteProtocol {
		if had && same(known, rt) {
			r.mu.Unlock()
			return
		}
		r.table.put(rt, false)
		r.table.exact = nil
	} else {
		// Deleted, or overwritten by a route of another protocol. Of an IPv6
		// multipath route the kernel may mean one next hop only: forgetting it
		// has the whole route written again.
		r.table.lose(k)
	}
	warn := false
	if had {
		r.stats.Drift++
		warn = r.drift.seen(time.Now())
	}
	r.mu.Unlock()
	if warn {
		r.log.Warn("something keeps deleting or replacing our routes", "route", rt.String(),
			"hint", "systemd-networkd does so unless ManageForeignRoutes=no is set in networkd.conf")
	}
	r.Notify()
}

// lostAddress has the table read again: with the last IPv4 address of a link the
// kernel silently takes all routes over it away, with another one those that have
// it as source, and an IPv6 one takes none or few.
func (r *Reconciler) lostAddress(index int, a netip.Addr) {
	if a.Is6() && a.IsLinkLocalUnicast() {
		return // as every pod's link loses with itself
	}
	r.mu.Lock()
	affected := r.table.overs[index] > 0
	r.stale = r.stale || affected
	r.mu.Unlock()
	if affected {
		r.Notify()
	}
}

// forgetBelow is how many routes over a lost link are written again unseen;
// with more, the table is read.
const forgetBelow = 16

// lostLink forgets the routes over a link: the kernel has silently taken them
// away, or is about to.
func (r *Reconciler) lostLink(index int) {
	r.mu.Lock()
	over := r.table.over(index)
	if len(over) < forgetBelow {
		for _, k := range over {
			r.table.lose(k)
		}
	} else {
		r.stale = true
	}
	r.mu.Unlock()
	if len(over) > 0 {
		r.Notify()
	}
}

// driftWatch notices that routes are taken away again and again.
type driftWatch struct {
	windows int // consecutive minutes with drift
	start   time.Time
	warned  bool
}

// seen notes a drift and reports whether it is time to warn: once, when there
// was drift in each of three minutes in a row.
func (d *driftWatch) seen(now time.Time) bool {
	switch age := now.Sub(d.start); {
	case age < time.Minute:
		return false
	case age < 2*time.Minute:
		d.windows++
	default:
		d.windows = 1
	}
	d.start = now
	if d.windows < 3 || d.warned {
		return false
	}
	d.warned = true
	return true
}
