package link

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix/internal/nl"
	"github.com/muslin-net/muslin/pkg/model"
)

// settle is how long a change may be followed by others before a new Host is
// published.
const settle = 5 * time.Millisecond

// DefaultResync is how often everything is read again.
const DefaultResync = 90 * time.Second

// Options are the settings of a Watcher.
type Options struct {
	NetNS  string        // path of the network namespace; empty: the process's own
	Resync time.Duration // 0: DefaultResync
	Logger *slog.Logger  // nil: slog.Default()
}

// Watcher follows the kernel. Host and Changed may be used from any goroutine.
type Watcher struct {
	log     *slog.Logger
	resync  time.Duration
	conn    *nl.Conn
	events  *nl.Listener
	changed chan struct{}
	ready   chan struct{}
	wake    chan struct{}

	mu    sync.Mutex // guards what follows
	table table
	// staleAll and staleRoutes ask for another look at the kernel.
	staleAll, staleRoutes bool
	touched               bool // the table has changed since host was made
	host                  model.Host
	version               uint64 // counts the values of host
}

// New opens the sockets. Run does the reading.
func New(o Options) (*Watcher, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	w := &Watcher{
		log: cmp.Or(o.Logger, slog.Default()), resync: cmp.Or(o.Resync, DefaultResync),
		changed: make(chan struct{}, 1), ready: make(chan struct{}), wake: make(chan struct{}, 1),
		table: newTable(), staleAll: true,
	}
	if w.conn, w.events, err = nl.Observe(ns, filter, groups...); err != nil {
		return nil, err
	}
	return w, nil
}

// Close closes the sockets.
func (w *Watcher) Close() error {
	w.conn.Close()
	w.events.Close()
	return nil
}

// Host is the kernel as it is now: a link that somebody made before the call is
// in it. It is the zero value until Ready. It is shared; nobody may change it.
func (w *Watcher) Host() model.Host {
	h, _ := w.Look()
	return h
}

// Look gives Host with a number that is another one for another value.
func (w *Watcher) Look() (host model.Host, version uint64) {
	select {
	case <-w.ready:
		w.catchUp()
	default:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.host, w.version
}

// catchUp takes in the notifications that are waiting.
func (w *Watcher) catchUp() {
	if err := w.events.Drain(w.event); err != nil {
		w.mark(func() { w.staleAll = true })
	}
	if err := w.publish(); err != nil {
		w.mark(func() { w.staleAll = true })
	}
}

// Changed tells that Host has a new value. It is a hint and holds at most one.
func (w *Watcher) Changed() <-chan struct{} { return w.changed }

// Ready is closed once the first Host is published.
func (w *Watcher) Ready() <-chan struct{} { return w.ready }

// String names the task.
func (w *Watcher) String() string { return "felix/link" }

// Run reads the kernel, then follows it until ctx ends.
func (w *Watcher) Run(ctx context.Context) error {
	if err := w.publish(); err != nil {
		return err
	}
	close(w.ready)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listening := make(chan error, 1)
	go func() { listening <- w.events.Follow(ctx, w.event, func() { w.mark(func() { w.staleAll = true }) }) }()
	tick := time.NewTicker(w.resync)
	defer tick.Stop()
	for {
		select {
		case err := <-listening:
			return err
		case <-tick.C:
			w.mark(func() { w.staleAll = true })
			continue
		case <-w.wake:
		}
		select {
		case err := <-listening:
			return err
		case <-time.After(settle):
		}
		if err := w.publish(); err != nil {
			w.log.Warn("cannot read links and routes", "err", err)
			w.mark(func() { w.staleAll = true })
		}
	}
}

func (w *Watcher) mark(f func()) {
	w.mu.Lock()
	f()
	w.touched = true
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// publish reads what is stale and hints when the Host is another one.
func (w *Watcher) publish() error {
	if err := w.refresh(); err != nil {
		return err
	}
	w.mu.Lock()
	same := true
	if w.touched {
		host := w.table.host()
		if same = equal(host, w.host); !same {
			w.host = host
			w.version++
		}
		w.touched = false
	}
	w.mu.Unlock()
	if !same {
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
	return nil
}

// refresh holds the lock during the dump, so that notifications of what
// happens meanwhile are taken in after it.
func (w *Watcher) refresh() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.staleAll && !w.staleRoutes {
		return nil
	}
	if w.staleAll {
		t := newTable()
		if err := t.readLinks(w.conn); err != nil {
			return fmt.Errorf("read links: %w", err)
		}
		t.routes = w.table.routes
		w.table = t
	}
	if w.staleAll || w.staleRoutes {
		routes, err := readRoutes(w.conn)
		if err != nil {
			return fmt.Errorf("read routes: %w", err)
		}
		w.table.routes = routes
	}
	w.staleAll, w.staleRoutes, w.touched = false, false, true
	return nil
}
