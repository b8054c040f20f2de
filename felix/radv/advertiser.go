package radv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

// DefaultInterval is how often the node advertises itself: what FRR does on such
// links.
const DefaultInterval = 10 * time.Second

// minDelay is between two advertisements to all on a link (RFC 4861 section 10,
// MIN_DELAY_BETWEEN_RAS).
const minDelay = 3 * time.Second

// Options are the settings of an Advertiser.
type Options struct {
	NetNS    string        // path of the network namespace; empty: the process's own
	Interval time.Duration // 0: DefaultInterval
}

// Advertiser sends router advertisements. Apply and Run may be called from
// different goroutines.
type Advertiser struct {
	*nl.Watch // hints when a link that was fine no longer is

	interval time.Duration
	socket   *socket
	refused  error // why there is no socket; a kernel without IPv6 needs none

	mu    sync.Mutex
	links map[int]*advertised // by interface index
}

// advertised is a link and how far it is.
type advertised struct {
	felix.AdvertisedLink
	joined   bool
	reported time.Time // when all on the link were last told; zero: that failed
}

// New opens the socket. Call Run to have it used, Close at the end. Where the
// kernel gives no such socket, Apply says so once there is a link that needs it.
func New(o Options) (*Advertiser, error) {
	ns, err := nl.Open(o.NetNS)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	a := &Advertiser{Watch: nl.NewWatch(), interval: cmp.Or(o.Interval, DefaultInterval), links: map[int]*advertised{}}
	a.socket, a.refused = open(ns)
	return a, nil
}

// Close closes the socket.
func (a *Advertiser) Close() error {
	if a.socket == nil {
		return nil
	}
	return a.socket.file.Close()
}

// String names the task.
func (a *Advertiser) String() string { return "felix/radv" }

// Apply advertises on the links of s.Advertised, from now on and at once on those
// that are new, and no longer on others. It goes on after an error.
func (a *Advertiser) Apply(ctx context.Context, s felix.State) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if a.socket == nil {
		if len(s.Advertised) == 0 {
			return nil
		}
		return a.refused
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := make(map[int]*advertised, len(s.Advertised))
	for _, l := range s.Advertised {
		wanted[l.Link] = &advertised{AdvertisedLink: l}
		if old := a.links[l.Link]; old != nil && old.AdvertisedLink == l {
			wanted[l.Link] = old
		}
	}
	for i := range a.links {
		if wanted[i] == nil {
			a.socket.leave(i)
		}
	}
	a.links = wanted
	var errs []error
	for _, l := range s.Advertised {
		if l := a.links[l.Link]; l.reported.IsZero() {
			errs = append(errs, a.tell(l))
		}
	}
	return errors.Join(errs...)
}

// tell advertises to all on a link. The caller holds the lock.
func (a *Advertiser) tell(l *advertised) error {
	l.reported = time.Time{}
	if !l.joined {
		if err := a.socket.join(l.Link); err != nil {
			return fmt.Errorf("listen for router solicitations on %s: %w", l.Device, err)
		}
		l.joined = true
	}
	if err := a.socket.send(l.Link, l.MAC, allNodes); err != nil {
		return fmt.Errorf("send router advertisement on %s: %w", l.Device, err)
	}
	l.reported = time.Now()
	return nil
}

// Run advertises and answers until ctx ends.
func (a *Advertiser) Run(ctx context.Context) error {
	a.Started()
	if a.socket == nil {
		<-ctx.Done()
		return nil
	}
	defer context.AfterFunc(ctx, func() { _ = a.socket.file.SetReadDeadline(time.Now()) })()
	var periodic sync.WaitGroup
	defer periodic.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	periodic.Go(func() { nl.Every(ctx, func() time.Duration { return a.interval }, a.tellAll) })
	for {
		link, from, err := a.socket.hear()
		switch {
		case ctx.Err() != nil || errors.Is(err, os.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded): // which ctx sets
			return nil
		case err != nil:
			return fmt.Errorf("hear router solicitations: %w", err)
		}
		a.answer(link, from)
	}
}

// tellAll advertises on each link. One that fails is Apply's to try again, and to
// complain of.
func (a *Advertiser) tellAll() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range a.links {
		if a.tell(l) != nil {
			a.Notify()
		}
	}
}

// answer advertises to who solicits; to all on the link where it does not say who
// it is, but not more often than routers may.
func (a *Advertiser) answer(link int, from netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.links[link]
	switch {
	case l == nil:
	case !from.IsUnspecified():
		_ = a.socket.send(link, l.MAC, from) // the next one to all is soon
	case time.Since(l.reported) >= minDelay:
		if a.tell(l) != nil {
			a.Notify()
		}
	}
}
