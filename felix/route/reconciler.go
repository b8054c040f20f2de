package route

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// DefaultResync is how often the whole table is read again (Calico
// routeRefreshInterval).
const DefaultResync = 90 * time.Second

// Options are the settings of a Reconciler.
type Options struct {
	NetNS  string        // path of the network namespace; empty: the process's own
	Resync time.Duration // 0: DefaultResync
	Logger *slog.Logger  // nil: slog.Default()
}

// Stats counts what was written and seen since the start.
type Stats struct {
	Added, Changed, Deleted, Failed int // messages to the kernel
	Dumps                           int // times the whole table was read
	Drift                           int // routes that somebody else deleted or overwrote
	Evicted                         int // routes of others over pods' links that were removed
	Adopted                         int // routes of ours that the first dump found, left by an earlier process
	Installed                       int // routes of ours in the kernel, as far as known
}

// Reconciler writes routes. Apply and Run may be called from different
// goroutines.
type Reconciler struct {
	*nl.Watch

	log    *slog.Logger
	resync time.Duration
	conn   *nl.Conn
	events *nl.Listener

	apply sync.Mutex // one Apply at a time

	mu    sync.Mutex // guards what follows
	table *table
	stale bool // table has to be read again before it is believed
	stats Stats
	drift driftWatch
}

// New opens the sockets. Call Run to have drift noticed, Close at the end.
func New(o Options) (*Reconciler, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	r := &Reconciler{
		log: cmp.Or(o.Logger, slog.Default()), resync: cmp.Or(o.Resync, DefaultResync),
		Watch: nl.NewWatch(),
		table: newTable(0), stale: true,
	}
	if r.conn, r.events, err = nl.Observe(ns, filter, groups...); err != nil {
		return nil, err
	}
	return r, nil
}

// Close closes the sockets; the kernel's routes stay.
func (r *Reconciler) Close() error {
	r.conn.Close()
	r.events.Close()
	return nil
}

// String names the task.
func (r *Reconciler) String() string { return "felix/route" }

// Stats returns the counters.
func (r *Reconciler) Stats() Stats {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.stats
	s.Installed = r.table.present
	return s
}

// Apply makes the kernel's routes those of s. It goes on after a route that the
// kernel refuses, and returns a *Refused then; any other error means that nothing
// is known.
// Without s.Prune nothing is deleted. Routes of others that s names go first: one
// of them may be in the place of ours.
func (r *Reconciler) Apply(ctx context.Context, s felix.State) error {
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.events.Drain(r.event); err != nil {
		r.markStale()
	}
	if err := r.refresh(); err != nil {
		return err
	}
	r.mu.Lock()
	if s.Refresh > 0 {
		r.resync = s.Refresh
	}
	p := plan(r.table, s.Routes, s.Prune)
	// Not known again until all of it is written.
	r.table.exact = nil
	r.mu.Unlock()
	var errs Refused
	for _, ops := range [][]op{r.evictions(s), p.add, p.change, p.remove} {
		if err := r.write(ctx, ops, &errs); err != nil {
			r.markStale()
			return errors.Join(errs.err(), fmt.Errorf("write routes: %w", err))
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(errs.Prefixes) == 0 && !r.stale && r.table.present == len(s.Routes) {
		r.table.exact = s.Routes
	}
	return errs.err()
}

// refresh reads the kernel's table when what we know of it is not to be
// believed.
func (r *Reconciler) refresh() error {
	r.mu.Lock()
	stale := r.stale
	// Cleared before the dump: what happens from here on is seen by the
	// listener and marks it again.
	r.stale = false
	r.mu.Unlock()
	if !stale {
		return nil
	}
	routes, err := dump(r.conn)
	if err != nil {
		r.markStale()
		return fmt.Errorf("read routes: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.table = r.table.adopt(routes)
	if r.stats.Dumps == 0 {
		r.stats.Adopted = len(routes)
	}
	r.stats.Dumps++
	return nil
}

// dump lists our routes as they are once what was heard of has been done.
func dump(c *nl.Conn) ([]felix.Route, error) {
	if err := c.Settle(); err != nil {
		return nil, err
	}
	var all []felix.Route
	for _, fam := range []byte{unix.AF_INET, unix.AF_INET6} {
		start := len(all)
		err := c.Dump(dumpRequest(fam), func() { all = all[:start] }, func(m nl.Message) {
			if rt, h, ok := nl.ParseRoute(m.Data); ok && h.Protocol == model.RouteProtocol {
				all = append(all, rt)
			}
		})
		// A namespace without any route of the family has no table yet.
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, err
		}
	}
	return all, nil
}

// dumpRequest asks for our routes alone; the kernel filters (strict checking,
// Linux 4.20).
func dumpRequest(fam byte) []byte {
	b := nl.AppendHeader(nil, unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	b = append(b, fam, 0, 0, 0, unix.RT_TABLE_MAIN, model.RouteProtocol, 0, 0, 0, 0, 0, 0)
	return nl.EndMessage(b, 0)
}

// writeCount is how many routes are encoded before they are sent.
const writeCount = 1000

// write sends ops. What the kernel will say is noted before it is sent, so that
// a notification of a later change by somebody else always comes after it.
func (r *Reconciler) write(ctx context.Context, ops []op, errs *Refused) error {
	var b nl.Batch
	for len(ops) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(writeCount, len(ops))
		part := ops[:n]
		ops = ops[n:]
		b.Reset()
		for _, o := range part {
			o.encode(&b)
		}
		r.note(part)
		err := r.conn.Do(&b, func(i int, err error) {
			if (part[i].verb == remove || part[i].verb == evict) && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENODEV)) {
				return // the absent is deleted already
			}
			r.refused(part[i])
			errs.add(part[i], err)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// evictions removes the routes of others that the State names, once all sources
// were heard.
func (r *Reconciler) evictions(s felix.State) []op {
	if !s.Prune {
		return nil
	}
	out := make([]op, 0, len(s.External))
	for i := range s.External {
		other := &s.External[i]
		r.log.Warn("route of somebody else's over a pod's link is removed", "route", other.String(),
			"hint", "FelixConfiguration removeExternalRoutes: false keeps such routes")
		out = append(out, op{verb: evict, other: other})
	}
	return out
}

func (r *Reconciler) note(ops []op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range ops {
		switch o.verb {
		case add, overwrite:
			r.stats.Added++
		case change:
			r.stats.Changed++
		case evict:
			r.stats.Evicted++
			continue
		case remove:
			r.stats.Deleted++
			r.table.forget(keyOf(*o.route))
			continue
		}
		r.table.put(*o.route, true)
	}
}

// refused takes back what note did for a request that the kernel refused.
func (r *Reconciler) refused(o op) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Failed++
	switch o.verb {
	case evict:
	case add:
		r.table.forget(keyOf(*o.route))
	case overwrite:
		r.table.lose(keyOf(*o.route))
	default:
		r.stale = true
	}
}

func (r *Reconciler) markStale() {
	r.mu.Lock()
	r.stale = true
	r.mu.Unlock()
}
