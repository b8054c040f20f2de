package podlink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// DefaultResync is how often everything is read again.
const DefaultResync = 90 * time.Second

// Namespaces are where container runtimes keep the network namespaces of pods.
var Namespaces = []string{"/run/netns", "/var/run/netns"}

// Options are the settings of a Reconciler.
type Options struct {
	NetNS      string        // path of the node's network namespace; empty: the process's own
	Namespaces []string      // folders with the pods' namespaces; empty: Namespaces
	ProcSys    string        // where /proc/sys can be written; empty: /proc/sys
	Resync     time.Duration // 0: DefaultResync
	Logger     *slog.Logger  // nil: slog.Default()
}

// Reconciler keeps pod links. Apply and Run may be called from different
// goroutines.
type Reconciler struct {
	*nl.Watch

	log     *slog.Logger
	folders []string
	procSys string
	resync  time.Duration
	ns      *nl.NS
	conn    *nl.Conn
	events  *nl.Listener

	apply sync.Mutex // one Apply at a time

	mu    sync.Mutex // guards what follows
	stale bool       // everything has to be read again
	drift int
	dirty map[int]bool
	known map[int]felix.PodLink // what the last Apply was told, by link
	mtu   int                   // likewise
	prune bool                  // likewise
	lost  string                // the pods whose namespaces were last not found
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Reconciler, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	r := &Reconciler{
		log: cmp.Or(o.Logger, slog.Default()), folders: o.Namespaces, procSys: cmp.Or(o.ProcSys, "/proc/sys"), resync: cmp.Or(o.Resync, DefaultResync), ns: ns,
		Watch: nl.NewWatch(),
		stale: true, dirty: map[int]bool{}, known: map[int]felix.PodLink{},
	}
	if len(r.folders) == 0 {
		r.folders = Namespaces
	}
	if r.conn, r.events, err = nl.Observe(ns, filter, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_NETCONF, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR); err != nil {
		ns.Close()
		return nil, err
	}
	return r, nil
}

// Close closes the sockets; the links stay.
func (r *Reconciler) Close() error {
	r.conn.Close()
	r.events.Close()
	r.ns.Close()
	return nil
}

// Drift counts how often somebody else took something of a link away, or resized it.
func (r *Reconciler) Drift() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drift
}

// String names the task.
func (r *Reconciler) String() string { return "felix/podlink" }

// Apply makes the pods' links what s.Pods and s.MTU say. It goes on with the
// others after one that failed; a link that is gone is no error. Links that it
// saw before and that nobody has touched since cost nothing.
func (r *Reconciler) Apply(ctx context.Context, s felix.State) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	drained := r.events.Drain(r.event)
	r.mu.Lock()
	all := r.stale || drained != nil || s.MTU.Pod != r.mtu
	dirty := r.dirty
	r.stale, r.dirty, r.mtu = false, map[int]bool{}, s.MTU.Pod
	known := make(map[int]felix.PodLink, len(s.Pods))
	for _, p := range s.Pods {
		known[p.Link] = p
		old := r.known[p.Link]
		all = all || !slices.Equal(p.Peering, old.Peering) || p.AnySource != old.AnySource
	}
	all = all || s.Prune != r.prune
	r.known, r.prune = known, s.Prune
	r.mu.Unlock()
	if !all && len(dirty) == 0 {
		return nil
	}
	err := r.repair(s, all, dirty)
	if err != nil { // whoever called tries again, in his own time
		r.mu.Lock()
		r.stale = true
		r.mu.Unlock()
	}
	return err
}

func (r *Reconciler) repair(s felix.State, all bool, dirty map[int]bool) error {
	if all {
		seen, err := r.read()
		if err != nil {
			return fmt.Errorf("read pod links: %w", err)
		}
		var errs []error
		for _, p := range s.Pods {
			if have, there := seen[p.Link]; there {
				errs = append(errs, r.restore(p, have, s.Prune))
			}
		}
		return errors.Join(append(errs, r.resize(s, seen))...)
	}
	var errs []error
	for _, p := range s.Pods {
		if dirty[p.Link] {
			errs = append(errs, r.restore(p, link{}, s.Prune))
		}
	}
	return errors.Join(errs...)
}

// restore puts back what is missing of a link, and takes away peering addresses
// that it is to have no more and what its pod gave it by router advertisements.
func (r *Reconciler) restore(p felix.PodLink, have link, prune bool) error {
	var q nl.Requests
	if !have.up {
		q.Up(p.Link)
	}
	if p.Gateway.IsValid() && have.addresses[p.Gateway] == 0 {
		q.Address(p.Link, p.Gateway)
	}
	if want := reversePath(p); have.reversePath != want {
		q.Settings(p.Link, map[uint16]uint32{nl.ConfRPFilter: want})
	}
	for _, a := range p.Peering {
		if have.addresses[a] == 0 {
			q.Peering(p.Link, a)
		}
	}
	for a, bits := range have.addresses {
		peering := bits == a.BitLen() && !(a.Is6() && a.IsLinkLocalUnicast())
		if prune && peering && !slices.Contains(p.Peering, a) {
			q.NoAddress(p.Link, a)
		}
	}
	if mac, err := net.ParseMAC(p.MAC); err == nil {
		for _, a := range p.Addresses {
			if have.neighbours[a] != mac.String() {
				q.Neighbour(p.Link, a, mac)
			}
		}
	}
	for _, a := range have.learned {
		q.DeleteAddress(p.Link, a)
	}
	if have.listens {
		if err := r.ns.IgnoreRouters(r.procSys, p.Device); err != nil {
			return err
		}
		r.log.Warn("pod link took router advertisements or redirects, and does no more", "device", p.Device, "addresses", have.learned)
	}
	if q.Len() == 0 {
		return nil
	}
	if err := q.Do(r.conn); errors.Is(err, unix.ENODEV) {
		return nil // it goes with its pod
	} else if err != nil {
		return fmt.Errorf("restore pod link %s: %w", p.Device, err)
	}
	r.log.Info("pod link restored", "device", p.Device)
	return nil
}

// reversePath is the link's rp_filter. A strict one keeps a pod from filling the
// node's table of neighbours by ARP in the names of others: the kernel notes none
// whom no route leads to by that link.
func reversePath(p felix.PodLink) uint32 {
	if p.AnySource {
		return 0
	}
	return 1
}

func (r *Reconciler) again() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
	r.Notify()
}
