package gobgp

import (
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// silentPeriod is how long an established peer that does not say that it sends
// End-of-RIB markers (RFC 4724 section 2) has to send nothing until its table counts as
// complete. One that says so may be silent for long: it restarts itself, and holds its
// table back until it has the others'.
const silentPeriod = 3 * time.Second

// overtakePeriod is how long a peer that sent its End-of-RIB has to send nothing:
// GoBGP tells of the marker and of best paths by two streams, and the first may
// overtake the second on a busy node.
const overtakePeriod = 300 * time.Millisecond

// exchangeWait is how long a peer that does not come counts as one that may.
const exchangeWait = 10 * time.Second

// watchAfter is how long a session stands before BFD begins to watch it. FRR
// makes its BFD session anew, with another discriminator, in the moment when a
// session comes up with a peer of a listen range; GoBGP, once it has heard the
// first one, takes no other and resets the session when its detection time is
// over. That repeats, by chance up to minutes.
const watchAfter = 2 * time.Second

// sessions remembers what the events said of each peer, and knows when the
// first exchange of tables is over.
type sessions struct {
	log    *slog.Logger
	notify func()
	attend chan struct{} // take has something

	mu        sync.Mutex
	peers     map[netip.Addr]*session
	holds     map[netip.Addr]time.Time // peers whose routes are held, and until when
	begun     time.Time                // zero until the first configuration is applied
	converged chan struct{}
	done      bool
}

type session struct {
	config    bgp.Peer
	state     packet.FSMState
	since     time.Time
	left      time.Time // when the last session ended
	flaps     int
	failed    failure // the last one
	failedAt  time.Time
	ending    failure                // of the session that stands, as the log has it
	refused   bool                   // while it was opened, with a reason yet to be found out
	ended     map[packet.Family]bool // families whose End-of-RIB was seen
	promised  map[packet.Family]bool // families whose End-of-RIB will come
	lastPath  time.Time              // until the first exchange is over
	wentDown  bool
	cameUp    bool
	watched   bool      // by BFD, if it is to be
	requested time.Time // when last looked at for its prefix limit
}

func newSessions(log *slog.Logger, notify func()) *sessions {
	return &sessions{
		log: log, notify: notify, attend: make(chan struct{}, 1),
		peers: map[netip.Addr]*session{}, holds: map[netip.Addr]time.Time{}, converged: make(chan struct{}),
	}
}

// configure tells which peers there are. A peer that is made anew starts with
// no history but its count of flaps.
func (s *sessions) configure(cfg bgp.Config, d peerDiff) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range append(slices.Clone(d.remove), d.silentReset...) {
		if v, ok := s.peers[p.Address]; ok {
			s.peers[p.Address] = &session{since: time.Now(), flaps: v.flaps, failed: v.failed, failedAt: v.failedAt, state: packet.BGP_FSM_IDLE}
		}
	}
	next := make(map[netip.Addr]*session, len(cfg.Peers))
	for _, p := range cfg.Peers {
		v := s.peers[p.Address]
		if v == nil {
			v = &session{since: time.Now(), state: packet.BGP_FSM_IDLE}
		}
		v.config = p
		next[p.Address] = v
	}
	s.peers = next
}

// restarted forgets the states of a server that is gone.
func (s *sessions) restarted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, v := range s.peers {
		s.peers[a] = &session{config: v.config, since: time.Now(), flaps: v.flaps, failed: failure{reasonIdentity, "identity changed"}, state: packet.BGP_FSM_IDLE}
	}
}

// start begins the wait for the first exchange, once.
func (s *sessions) start(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.IsZero() {
		s.begun = now
	}
}

func (s *sessions) event(e *apiutil.WatchEventMessage_PeerEvent, now time.Time) {
	if e.Type == apiutil.PEER_EVENT_END_OF_INIT {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.peers[e.Peer.State.NeighborAddress]
	if !ok || v.state == e.Peer.State.SessionState {
		return
	}
	old := v.state
	v.state, v.since, v.watched = e.Peer.State.SessionState, now, false
	switch {
	case v.state == packet.BGP_FSM_ESTABLISHED:
		v.ended, v.promised = map[packet.Family]bool{}, promisedBy(e.Peer.State.RemoteCap)
		v.cameUp = true
		v.recovers()
		wake(s.attend)
		s.log.Info("bgp session established", "peer", v.config.Address, "as", v.config.ASN, "kind", v.config.Kind)
	case old == packet.BGP_FSM_ESTABLISHED:
		v.flaps++
		v.wentDown = true
		v.fails(v.whyLost(e.Peer.State), now)
		v.left = now
		s.log.Warn("bgp session lost", "peer", v.config.Address, "as", v.config.ASN, "kind", v.config.Kind, "reason", v.failed.text)
		wake(s.attend)
	case v.state == packet.BGP_FSM_IDLE:
		if v.turnedAway(e.Peer.State, now) {
			wake(s.attend)
		}
	}
	s.notify()
}

func (s *sessions) endOfRIB(p *apiutil.Path) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.peers[p.PeerAddress]; ok && v.ended != nil {
		v.ended[p.Family] = true
	}
}

// paths notes that peers still send, until the first exchange is over.
func (s *sessions) paths(ps []*apiutil.Path, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return
	}
	for _, p := range ps {
		if v, ok := s.peers[p.PeerAddress]; ok {
			v.lastPath = now
		}
	}
}

// take gives the peers whose session ended, those whose session began, and
// those that refused one, since the last call.
func (s *sessions) take() (down, up, refused []netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, v := range s.peers {
		if v.wentDown {
			down = append(down, a)
		}
		if v.cameUp {
			up = append(up, a)
		}
		if v.refused {
			refused = append(refused, a)
		}
		v.wentDown, v.cameUp, v.refused = false, false, false
	}
	return down, up, refused
}

// longDown gives the peers with a prefix limit that have been idle for pause,
// each once a pause.
func (s *sessions) longDown(now time.Time, pause time.Duration) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, v := range s.peers {
		if v.config.PrefixLimit > 0 && v.state == packet.BGP_FSM_IDLE && now.Sub(v.since) >= pause && now.Sub(v.requested) >= pause {
			v.requested = now
			out = append(out, a)
		}
	}
	return out
}

// isWatched reports whether BFD, where it is configured, watches a peer.
func (s *sessions) isWatched(a netip.Addr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.peers[a]
	return ok && v.watched
}

// settled gives the peers whose sessions have stood for watchAfter, each once.
func (s *sessions) settled(now time.Time) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, v := range s.peers {
		if v.state == packet.BGP_FSM_ESTABLISHED && !v.watched && now.Sub(v.since) >= watchAfter {
			v.watched = true
			out = append(out, a)
		}
	}
	return out
}

func (s *sessions) isConverged() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.done
}

// tick decides whether the first exchange is over.
func (s *sessions) tick(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done || s.begun.IsZero() {
		return
	}
	missing := s.missing(now)
	for _, a := range missing {
		if now.Before(s.peers[a].due(s.begun)) {
			return
		}
	}
	if len(missing) > 0 {
		s.log.Warn("not every peer has sent its table, going on without", "missing", missing)
	}
	s.done = true
	close(s.converged)
	s.notify()
}

func (s *sessions) missing(now time.Time) []netip.Addr {
	var out []netip.Addr
	for a, v := range s.peers {
		if !v.complete(now) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// due is until when a peer's first table is waited for. A peer may be restarting, as all
// are while a new version is rolled out and its image pulled: the kernel alone has its
// routes then.
func (v *session) due(begun time.Time) time.Time {
	if v.left.After(begun) {
		begun = v.left
	}
	if v.config.NoRestart {
		return begun.Add(exchangeWait)
	}
	return begun.Add(max(exchangeWait, v.config.RestartTime))
}

func (v *session) complete(now time.Time) bool {
	if v.state != packet.BGP_FSM_ESTABLISHED {
		return false
	}
	marked := true
	for _, f := range v.config.Families {
		switch f := family(f); {
		case v.ended[f]:
		case v.promised[f] && !v.config.NoRestart:
			return false
		default:
			marked = false
		}
	}
	if marked {
		return now.Sub(v.lastPath) >= overtakePeriod
	}
	return now.Sub(v.since) >= silentPeriod && now.Sub(v.lastPath) >= silentPeriod
}

// promisedBy are the families of which a peer with these capabilities will send an
// End-of-RIB: those that it speaks, if it advertises graceful restart, whether or not it
// keeps forwarding state of them (RFC 4724 section 3).
func promisedBy(capabilities []packet.ParameterCapabilityInterface) map[packet.Family]bool {
	out, restarts := map[packet.Family]bool{}, false
	for _, c := range capabilities {
		switch c := c.(type) {
		case *packet.CapMultiProtocol:
			out[c.CapValue] = true
		case *packet.CapGracefulRestart:
			restarts = true
		}
	}
	switch {
	case !restarts:
		return nil
	case len(out) == 0: // RFC 4271 alone
		out[packet.RF_IPv4_UC] = true
	}
	return out
}

func family(f model.Family) packet.Family {
	return model.OfFamily(f, packet.RF_IPv4_UC, packet.RF_IPv6_UC)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
