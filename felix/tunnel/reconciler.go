package tunnel

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// DefaultGrace is how long a device that is no longer wanted stays,
// DefaultOverlap how long the heir of one whose VNI or port changes is there
// before it is used: nodes that hear of the change within that time of each
// other lose nothing.
const (
	DefaultGrace   = time.Minute
	DefaultOverlap = 20 * time.Second
)

const alias = "muslin:tunnel"

// names are the devices of a State, and those beside them.
var names = []string{
	felix.IPIPDevice, felix.VXLANDevice, felix.VXLANDeviceV6,
	felix.NextDevice(felix.VXLANDevice), felix.NextDevice(felix.VXLANDeviceV6),
	felix.PreviousDevice(felix.VXLANDevice), felix.PreviousDevice(felix.VXLANDeviceV6),
}

// Options are the settings of a Reconciler.
type Options struct {
	NetNS string        // path of the network namespace; empty: the process's own
	Grace time.Duration // 0: DefaultGrace
	// Overlap is how long the heir of a device is there before it is used; 0:
	// DefaultOverlap.
	Overlap time.Duration
	Resync  time.Duration // how often everything is read again; 0: 90 s
	Logger  *slog.Logger  // nil: slog.Default()
}

// Reconciler writes tunnels. Apply and Run may be called from different
// goroutines.
type Reconciler struct {
	*nl.Watch

	log    *slog.Logger
	conn   *nl.Conn
	events *nl.Listener

	grace, overlap, resync time.Duration

	apply      sync.Mutex // one Apply at a time
	last       []felix.Tunnel
	unwanted   map[string]time.Time // since when a device of ours is not wanted
	successors map[string]time.Time // since when a device waits to have another's name

	mu    sync.Mutex // guards what follows
	stale bool
	drift int
	ours  map[int]bool // interface indexes of our devices
	wait  bool         // a device waits to be deleted, or for its name
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Reconciler, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	r := &Reconciler{
		log: cmp.Or(o.Logger, slog.Default()), grace: cmp.Or(o.Grace, DefaultGrace), overlap: cmp.Or(o.Overlap, DefaultOverlap), resync: cmp.Or(o.Resync, 90*time.Second),
		Watch:    nl.NewWatch(),
		unwanted: map[string]time.Time{}, successors: map[string]time.Time{}, ours: map[int]bool{}, stale: true,
	}
	if r.conn, r.events, err = nl.Observe(ns, filter, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR); err != nil {
		return nil, err
	}
	return r, nil
}

// Close closes the sockets; the devices stay.
func (r *Reconciler) Close() error {
	r.conn.Close()
	r.events.Close()
	return nil
}

// Drift counts how often somebody else took away a device, or an address or a
// neighbour of one.
func (r *Reconciler) Drift() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drift
}

// String names the task.
func (r *Reconciler) String() string { return "felix/tunnel" }

// Apply makes the tunnel devices those of s.Tunnels. It goes on with the others
// after one that failed. Without s.Prune nothing is deleted.
func (r *Reconciler) Apply(ctx context.Context, s felix.State) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.events.Drain(r.event); err != nil {
		r.again()
	}
	r.mu.Lock()
	idle := !r.stale && !r.wait && reflect.DeepEqual(r.last, s.Tunnels)
	r.stale, r.wait = false, false
	r.mu.Unlock()
	if idle {
		return ctx.Err()
	}
	var errs []error
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return errors.Join(append(errs, err)...)
		}
		if err := r.device(name, s); err != nil {
			errs = append(errs, fmt.Errorf("tunnel device %s: %w", name, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		r.mark()
		return err
	}
	r.last = s.Tunnels
	return nil
}

// device makes one device as it should be.
func (r *Reconciler) device(name string, s felix.State) error {
	have, err := r.conn.GetLink(name)
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	there := err == nil
	for _, want := range s.Tunnels {
		if want.Name == name {
			delete(r.unwanted, name)
			return r.ensure(want, have, there)
		}
	}
	delete(r.successors, felix.NextDevice(name))
	if _, waits := r.successors[name]; waits || !there || have.Alias != alias || !s.Prune {
		delete(r.unwanted, name)
		return nil
	}
	return r.retire(have)
}

func (r *Reconciler) mark() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
}

func (r *Reconciler) again() {
	r.mark()
	r.Notify()
}
