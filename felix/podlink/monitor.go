package podlink

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// filter drops, in the kernel, what we caused ourselves, and neighbours and
// addresses that come: only what goes is of interest.
func filter(port uint32) []unix.SockFilter {
	return nl.FromOthers(port, unix.RTM_NEWNEIGH, unix.RTM_NEWADDR)
}

// Run listens for changes by others and hints through Changed, until ctx ends.
func (r *Reconciler) Run(ctx context.Context) error {
	return r.Follow(ctx, r.events, r.event, r.again, func(ctx context.Context) {
		nl.Every(ctx, func() time.Duration { return r.resync }, r.again)
	})
}

// event marks a link that lost something of what it has to have.
func (r *Reconciler) event(m nl.Message) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return
	}
	index := int(nl.Uint32(m.Data[4:])) // in the same place of every kind but this
	if m.Type == unix.RTM_NEWNETCONF {
		index, _ = settings(m)
	}
	r.mu.Lock()
	p, ours := r.known[index]
	lost := ours && losesSomething(m, p)
	resized := ours && r.mtu > 0 && p.MTU == 0 && sizeOf(m) != 0 && sizeOf(m) != r.mtu
	if lost {
		r.dirty[index] = true
	}
	r.stale = r.stale || resized
	if lost || resized {
		r.drift++
	}
	r.mu.Unlock()
	if lost || resized {
		r.Notify()
	}
}

func losesSomething(m nl.Message, p felix.PodLink) bool {
	switch m.Type {
	case unix.RTM_NEWLINK:
		return len(m.Data) >= unix.SizeofIfInfomsg && !nl.ParseLink(m.Data).AdminUp
	case unix.RTM_DELADDR:
		a := nl.ParseAddress(m.Data).Addr()
		return a == p.Gateway || slices.Contains(p.Peering, a)
	case unix.RTM_DELNEIGH: // of others the kernel forgets one or the other every 15 s
		return slices.Contains(p.Addresses, neighbourOf(m))
	case unix.RTM_NEWNETCONF: // whoever sets what links of others have, as systemd does
		_, filter := settings(m)
		return filter >= 0 && filter != int(reversePath(p))
	}
	return false
}

// neighbourOf reads the address of a message on a neighbour.
func neighbourOf(m nl.Message) (a netip.Addr) {
	if len(m.Data) < sizeofNdMsg {
		return a
	}
	nl.Attrs(m.Data[sizeofNdMsg:], func(kind uint16, data []byte) {
		if kind == unix.NDA_DST {
			a, _ = netip.AddrFromSlice(data)
		}
	})
	return a
}

// settings reads the interface index and the rp_filter, -1 when it tells of none,
// of a message on IPv4 settings.
func settings(m nl.Message) (index, filter int) {
	const sizeofNetconf, ifindex, rpFilter = 4, 1, 3 // struct netconfmsg, NETCONFA_*
	filter = -1
	nl.Attrs(m.Data[sizeofNetconf:], func(kind uint16, data []byte) {
		switch {
		case len(data) < 4:
		case kind == ifindex:
			index = int(int32(nl.Uint32(data)))
		case kind == rpFilter:
			filter = int(nl.Uint32(data))
		}
	})
	return index, filter
}

// sizeOf is the MTU that a message tells of, 0 when it tells of none.
func sizeOf(m nl.Message) int {
	if m.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return 0
	}
	return nl.ParseLink(m.Data).MTU
}
