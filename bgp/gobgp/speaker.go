package gobgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

const (
	defaultDeferral = 5 * time.Second
	maxDeferral     = 10 * time.Second
	auditInterval   = 5 * time.Minute
	limitPause      = 5 * time.Minute // how long a peer that broke its prefix limit stays down
	tickInterval    = 500 * time.Millisecond
)

// Options are what a speaker must know before its first configuration.
type Options struct {
	Logger *slog.Logger // required

	// Restarting says that routes of an earlier process are still in the
	// kernel and forward packets (RFC 4724 section 4.1).
	Restarting bool
	// Deferral bounds how long a restarting speaker holds its updates back:
	// 1 s to 10 s, whole seconds. Default 5 s.
	Deferral time.Duration
}

// Speaker is an embedded BGP speaker. Its methods may be called from any
// goroutine.
type Speaker struct {
	log      *slog.Logger
	opts     Options
	ops      chan op
	rib      *learned
	sessions *sessions
	changed  chan struct{}
	retained *retained // owned by Run's goroutine

	mu      sync.Mutex
	current *bgp.Config // in force; replaced, never changed
	server  *server     // owned by Run's goroutine; read by Peers under mu

	detailMu   sync.Mutex
	detailTime time.Time
	detailed   map[netip.Addr]peerDetail
}

type op struct {
	config bgp.Config
	ctx    context.Context
	done   chan error
}

// New makes a speaker. It starts no goroutine and opens no socket; Run does.
func New(o Options) *Speaker {
	if o.Deferral == 0 {
		o.Deferral = defaultDeferral
	}
	o.Deferral = min(max(o.Deferral.Round(time.Second), time.Second), maxDeferral)
	s := &Speaker{
		log: o.Logger, opts: o,
		ops: make(chan op), changed: make(chan struct{}, 1), current: &bgp.Config{},
	}
	s.rib = newLearned(s.notify)
	s.sessions = newSessions(o.Logger, s.notify)
	return s
}

// Run owns the speaker until ctx ends, then returns nil.
//
// It does not close the sessions: taking peers down one by one would have
// GoBGP withdraw the routes of each from the others. They end with the
// process, and all peers see a graceful restart at once. Close ends them for
// whoever lives on.
func (s *Speaker) Run(ctx context.Context) error {
	tick := time.NewTicker(tickInterval)
	defer tick.Stop()
	audit := time.NewTicker(auditInterval)
	defer audit.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case o := <-s.ops:
			o.done <- s.apply(o.ctx, o.config)
		case <-s.sessions.attend:
			s.advanceSessions()
		case <-audit.C:
			s.relist()
		case now := <-tick.C:
			s.tick(now)
		}
	}
}

// Apply makes cfg the configuration in force. It may be called again with the
// same or another one at any time; an error says what could not be done, the
// rest is. A Config with ASN 0 changes nothing. Run must be running.
func (s *Speaker) Apply(ctx context.Context, cfg bgp.Config) error {
	return s.do(op{config: cfg, ctx: ctx})
}

func (s *Speaker) do(o op) error {
	o.done = make(chan error, 1)
	select {
	case s.ops <- o:
	case <-o.ctx.Done():
		return fmt.Errorf("speaker is not running: %w", o.ctx.Err())
	}
	select {
	case err := <-o.done:
		return err
	case <-o.ctx.Done():
		return fmt.Errorf("configuration is still being applied: %w", o.ctx.Err())
	}
}

// Changed receives when Learned, Peers or Converged may give another answer
// than before. Hints are coalesced.
func (s *Speaker) Changed() <-chan struct{} { return s.changed }

func (s *Speaker) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Converged is closed once the first configuration has been applied and every peer in
// it has sent its whole table, or its restart time has passed: it may be restarting, too.
// Nothing learned before that is complete: until then no route that an earlier process
// installed may be removed.
func (s *Speaker) Converged() <-chan struct{} { return s.sessions.converged }

// apply brings the server from the configuration in force to cfg.
func (s *Speaker) apply(ctx context.Context, cfg bgp.Config) error {
	if cfg.ASN == 0 {
		return nil
	}
	if s.server == nil || globalChanged(*s.config(), cfg) {
		if err := s.restart(ctx, cfg); err != nil {
			return err
		}
	}
	srv := s.server
	cfg = s.withRetained(cfg, time.Now())
	d := srv.diffPeers(cfg)
	s.sessions.configure(cfg, d)
	s.setConfig(cfg)
	var errs []error
	errs = append(errs, srv.setPolicies(ctx, cfg))
	errs = append(errs, srv.addPaths(cfg.Paths))
	errs = append(errs, s.applyPeers(ctx, d)...)
	errs = append(errs, srv.deletePaths(cfg.Paths))
	errs = append(errs, srv.refresh(ctx, d.refresh)...)
	s.sessions.start(time.Now())
	s.notify()
	return errors.Join(errs...)
}

func (s *Speaker) applyPeers(ctx context.Context, d peerDiff) []error {
	var errs []error
	for _, p := range d.remove {
		errs = append(errs, s.server.deletePeer(ctx, p))
	}
	for _, p := range d.silentReset {
		errs = append(errs, s.silentReset(ctx, p, s.config().ListenPort))
	}
	for _, p := range d.update {
		errs = append(errs, s.server.updatePeer(ctx, p, s.opts.Deferral, s.sessions.isWatched(p.Address)), s.server.revive(ctx, p.Address))
	}
	for _, p := range d.add {
		errs = append(errs, s.server.addPeer(ctx, p, s.opts.Deferral, s.restarting()))
	}
	return errs
}

// restarting is true for the peers of the first moments alone: later ones have
// never heard of an earlier process.
func (s *Speaker) restarting() bool {
	return s.opts.Restarting && !s.sessions.isConverged()
}

// restart starts the server, after ending one with another identity.
func (s *Speaker) restart(ctx context.Context, cfg bgp.Config) error {
	if s.server != nil {
		s.log.Info("bgp identity changed, every session restarts", "as", cfg.ASN, "router-id", cfg.RouterID, "port", cfg.ListenPort)
		old := s.server
		s.setServer(nil) // nobody looks at it any more
		old.stop()
		s.setConfig(bgp.Config{})
		s.rib.clear()
		s.sessions.restarted()
	}
	srv, err := startServer(ctx, s.log, cfg, s.sessions.received)
	if err != nil {
		return err
	}
	if err := srv.watch(s.rib, s.sessions); err != nil {
		srv.stop()
		return err
	}
	s.setServer(srv)
	return nil
}

// relist subscribes anew, which lists the whole RIB first: what the event
// stream may have lost, and marks that it does not carry, come in.
func (s *Speaker) relist() {
	if s.server == nil {
		return
	}
	if err := s.server.watchRIB(s.rib, s.sessions); err != nil {
		s.log.Error("rib could not be listed again", "error", err)
	}
}

// advanceSessions looks at sessions that began or ended.
func (s *Speaker) advanceSessions() {
	if s.server == nil {
		return
	}
	ctx, cfg := context.Background(), s.config()
	down, up, refused := s.sessions.take()
	for _, a := range refused {
		if p, ok := cfg.Peer(a); ok {
			s.sessions.explained(a, s.server.whyRefused(ctx, p))
		}
	}
	for _, a := range down {
		p, ok := cfg.Peer(a)
		if ok {
			s.watch(ctx, p)
		}
		if ok && s.server.holdTimerExpired(ctx, a) {
			// GoBGP keeps the routes of a peer that fell silent for the whole
			// restart time; RFC 4724 keeps them only when the connection was
			// closed. Making the peer anew drops them.
			limited := s.server.limited(ctx, p)
			s.log.Info("peer was given up, its routes are dropped", "peer", a, "prefix-limit", limited)
			s.reset(ctx, p)
			if limited {
				if err := s.server.close(ctx, a); err != nil {
					s.log.Error("peer over its prefix limit stays open", "peer", a, "error", err)
				}
			}
		}
	}
	for _, a := range up {
		forgot := s.server.began(ctx, a)
		if p, ok := cfg.Peer(a); ok && forgot {
			// RFC 4724 section 4.2: without the capability in the new OPEN the
			// old routes go at once; GoBGP would wait for an End-of-RIB that
			// does not come.
			s.log.Info("peer came back without graceful restart, its old routes are dropped", "peer", a)
			s.reset(ctx, p)
		}
	}
	if len(down) > 0 {
		s.relist()
	}
}

// watch has BFD follow the session of a peer that has settled or gone down.
func (s *Speaker) watch(ctx context.Context, p bgp.Peer) {
	if p.BFD == nil {
		return
	}
	if err := s.server.watchPeer(ctx, p, s.opts.Deferral, s.sessions.isWatched(p.Address)); err != nil {
		s.log.Error("bfd of a peer could not be changed", "peer", p.Address, "error", err)
	}
}

// watchSettled has BFD begin to watch sessions that have stood for a while.
func (s *Speaker) watchSettled(now time.Time) {
	cfg := s.config()
	for _, a := range s.sessions.settled(now) {
		if p, ok := cfg.Peer(a); ok {
			s.watch(context.Background(), p)
		}
	}
}

func (s *Speaker) reset(ctx context.Context, p bgp.Peer) {
	if err := errors.Join(s.server.deletePeer(ctx, p), s.server.addPeer(ctx, p, s.opts.Deferral, false)); err != nil {
		s.log.Error("peer could not be reset", "peer", p.Address, "error", err)
	}
}

// tick does what is due.
func (s *Speaker) tick(now time.Time) {
	s.sessions.tick(now)
	s.reviveLimited(now)
	s.watchSettled(now)
	for _, a := range s.sessions.endedHolds(now) {
		s.rib.release(a)
	}
	if cfg, due := s.endRetained(now); due {
		s.log.Info("old sessions inside the cluster end")
		if err := s.apply(context.Background(), cfg); err != nil {
			s.log.Error("old sessions could not be ended", "error", err)
		}
	}
}

// reviveLimited gives peers that broke their prefix limit another chance.
func (s *Speaker) reviveLimited(now time.Time) {
	if s.server == nil {
		return
	}
	for _, a := range s.sessions.longDown(now, limitPause) {
		if err := s.server.revive(context.Background(), a); err != nil {
			s.log.Error("peer could not be enabled again", "peer", a, "error", err)
		}
	}
}

// Close ends all sessions without a word, so that peers see a graceful
// restart, and frees the listening socket. Run must have returned.
func (s *Speaker) Close(ctx context.Context) {
	if s.server != nil {
		old := s.server
		s.setServer(nil)
		old.stopGracefully(ctx)
		s.setConfig(bgp.Config{})
	}
}

// Learned lists the prefixes that BGP has chosen and that came from peers,
// sorted, each with its set of equally good next hops (at most
// bgp.Config.MaxPaths). The slice is shared: it must not be changed.
func (s *Speaker) Learned() []model.Learned { return s.rib.snapshot(s.config()) }

func (s *Speaker) config() *bgp.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

func (s *Speaker) setConfig(c bgp.Config) {
	s.rib.expect(&c)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.current = &c
}

// running gives the server, nil for none, to who does not run in the speaker's own goroutine.
func (s *Speaker) running() *server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

func (s *Speaker) setServer(v *server) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server = v
}
