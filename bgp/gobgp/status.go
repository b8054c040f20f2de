package gobgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// countSentUpTo is how many pairs of peer and path may be run through the
// export policies to count what was sent; beyond it Sent is left empty.
const countSentUpTo = 100_000

// detailAge is how old the counters in a PeerStatus may be. Asking GoBGP for
// them is work for its one management loop.
const detailAge = time.Second

// Peers gives the state of each configured session, sorted by address. States
// are of this moment; counters, BFD and timers up to a second old.
func (s *Speaker) Peers() []model.PeerStatus {
	out := s.sessions.status()
	details := s.details()
	for i := range out {
		if d, ok := details[out[i].Address]; ok {
			detail(&out[i], d.peer)
			out[i].BFDState = cmp.Or(d.bfd, out[i].BFDState)
		}
	}
	return out
}

// Sessions is Peers without what GoBGP would have to be asked for: no counters,
// no timers, no BFD. It costs next to nothing.
func (s *Speaker) Sessions() []model.PeerStatus { return s.sessions.status() }

// Routes counts the prefixes that were learned.
func (s *Speaker) Routes() int { return s.rib.size() }

// Established counts the sessions that are up, and those that are configured.
// It costs next to nothing.
func (s *Speaker) Established() (up, configured int) { return s.sessions.count() }

// Awaited says what is missing until this speaker may end without harm, in words, and
// nothing once tables were exchanged both ways with the peers that there are: those that
// do not come within 10 s count no more, unless it is all of them.
//
// A restarting speaker holds its table back (RFC 4724 section 4.1). One that ends before
// it was sent loses the routes that its peers still keep: they delete stale ones at the
// second restart in a row (section 4.2).
func (s *Speaker) Awaited(ctx context.Context) string {
	if text := s.sessions.awaited(time.Now()); text != "" {
		return text
	}
	srv := s.running()
	if srv == nil {
		return "the speaker has not started yet"
	}
	text := ""
	err := srv.bgp.ListPeer(ctx, &api.ListPeerRequest{}, func(p *api.Peer) {
		if p.GetGracefulRestart().GetLocalRestarting() && p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED {
			text = p.GetState().GetNeighborAddress() + " was not sent this node's table yet"
		}
	})
	if err != nil {
		return err.Error()
	}
	return text
}

// awaited says what of the peers' tables is missing.
func (s *sessions) awaited(now time.Time) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing := s.missing(now)
	switch {
	case s.begun.IsZero():
		return "there is no configuration yet"
	case len(s.peers) > 0 && s.established() == 0:
		return "no session is established yet"
	case !s.done && len(missing) > 0 && now.Sub(s.begun) < exchangeWait:
		return missing[0].String() + " has not sent its table yet"
	}
	return ""
}

type peerDetail struct {
	peer *api.Peer
	bfd  string
}

func (s *Speaker) details() map[netip.Addr]peerDetail {
	s.detailMu.Lock()
	defer s.detailMu.Unlock()
	if time.Since(s.detailTime) < detailAge {
		return s.detailed
	}
	srv := s.running()
	if srv == nil {
		return nil
	}
	out := map[netip.Addr]peerDetail{}
	_, configured := s.sessions.count()
	req := &api.ListPeerRequest{EnableAdvertised: configured*s.rib.size() <= countSentUpTo}
	err := srv.bgp.ListPeer(context.Background(), req, func(p *api.Peer) {
		if a, err := netip.ParseAddr(p.GetState().GetNeighborAddress()); err == nil {
			out[a] = peerDetail{peer: p}
		}
	})
	if err != nil && s.running() != srv { // another identity: this server has just been stopped
		return nil
	}
	if err != nil {
		s.log.Error("peers could not be listed", "error", err)
	}
	srv.bgp.ListBfdPeer(context.Background(), func(addr string, st *api.BfdPeerState) {
		if a, err := netip.ParseAddr(addr); err == nil {
			d := out[a]
			d.bfd = bfdName(st.GetSessionState())
			out[a] = d
		}
	})
	s.detailed, s.detailTime = out, time.Now()
	return out
}

func (s *sessions) count() (up, configured int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.established(), len(s.peers)
}

func (s *sessions) established() (up int) {
	for _, v := range s.peers {
		if v.state == packet.BGP_FSM_ESTABLISHED {
			up++
		}
	}
	return up
}

func (l *learned) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.routes)
}

func (s *sessions) status() []model.PeerStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]model.PeerStatus, 0, len(s.peers))
	for _, v := range s.peers {
		st := model.PeerStatus{
			Address: v.config.Address, Port: v.config.Port, ASN: v.config.ASN,
			Kind: v.config.Kind, Object: v.config.Object,
			State: stateName(v.state), Since: v.since, Flaps: v.flaps,
			Received: map[string]int{}, Accepted: map[string]int{}, Sent: map[string]int{},
		}
		v.say(&st)
		if v.config.BFD != nil {
			st.BFDState = bfdName(api.BfdSessionState_BFD_SESSION_STATE_DOWN)
		}
		if v.state == packet.BGP_FSM_ESTABLISHED {
			st.UptimeEstablished = time.Since(v.since)
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(x, y model.PeerStatus) int { return cmp.Or(x.Address.Compare(y.Address)) })
	return out
}

func detail(st *model.PeerStatus, p *api.Peer) {
	m := p.GetState().GetMessages()
	st.MessagesIn, st.MessagesOut = m.GetReceived().GetTotal(), m.GetSent().GetTotal()
	t := p.GetTimers().GetState()
	st.NegotiatedHold = time.Duration(t.GetNegotiatedHoldTime()) * time.Second
	st.Keepalive = time.Duration(t.GetKeepaliveInterval()) * time.Second
	st.PeerRestarting = p.GetGracefulRestart().GetPeerRestarting()
	for _, a := range p.GetAfiSafis() {
		f := model.IPv4.Lower()
		if a.GetConfig().GetFamily().GetAfi() == api.Family_AFI_IP6 {
			f = model.IPv6.Lower()
		}
		v := a.GetState()
		st.Received[f], st.Accepted[f], st.Sent[f] = int(v.GetReceived()), int(v.GetAccepted()), int(v.GetAdvertised())
		gr := a.GetMpGracefulRestart().GetState()
		st.GracefulRestart = st.GracefulRestart || gr.GetReceived() && gr.GetEnabled()
	}
	if overLimit(p) {
		st.State, st.LastReason, st.LastError = "Idle", reasonPrefixLimit, "prefix limit reached"
	}
}

// bfdName makes "Up" of BFD_SESSION_STATE_UP.
func bfdName(st api.BfdSessionState) string {
	words := strings.Split(strings.ToLower(strings.TrimPrefix(st.String(), "BFD_SESSION_STATE_")), "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// stateName gives the names of RFC 4271 section 8.2.2.
func stateName(s packet.FSMState) model.SessionState {
	switch s {
	case packet.BGP_FSM_CONNECT:
		return "Connect"
	case packet.BGP_FSM_ACTIVE:
		return "Active"
	case packet.BGP_FSM_OPENSENT:
		return "OpenSent"
	case packet.BGP_FSM_OPENCONFIRM:
		return "OpenConfirm"
	case packet.BGP_FSM_ESTABLISHED:
		return model.Established
	}
	return "Idle"
}

// overLimit reports whether the session was closed for its prefix limit: by
// GoBGP, or by us when the peer had to be made anew to drop its routes (nothing
// else takes a peer down administratively).
func overLimit(p *api.Peer) bool {
	admin := p.GetState().GetAdminState()
	return admin == api.PeerState_ADMIN_STATE_PFX_CT || admin == api.PeerState_ADMIN_STATE_DOWN
}

// limited reports whether a lost peer was closed for its prefix limit: it says
// so, or, as it may say so a moment later only, has sent more than it may.
func (s *server) limited(ctx context.Context, want bgp.Peer) (limited bool) {
	s.inspect(ctx, want.Address, func(p *api.Peer) {
		limited = overLimit(p)
		for _, a := range p.GetAfiSafis() {
			limited = limited || want.PrefixLimit > 0 && a.GetState().GetReceived() > uint64(want.PrefixLimit)
		}
	})
	return limited
}

// close keeps a peer closed until revive.
func (s *server) close(ctx context.Context, a netip.Addr) error {
	if err := s.bgp.DisablePeer(ctx, &api.DisablePeerRequest{Address: a.String()}); err != nil {
		return fmt.Errorf("close peer %s: %w", a, err)
	}
	return nil
}

// holdTimerExpired reports whether the session of a ended because we gave up on
// the peer: the only case in which we send a NOTIFICATION and GoBGP still keeps
// the peer's routes.
func (s *server) holdTimerExpired(ctx context.Context, a netip.Addr) (expired bool) {
	s.inspect(ctx, a, func(p *api.Peer) {
		sent := p.GetState().GetMessages().GetSent().GetNotification()
		s.refusals[a] = p.GetState().GetMessages().GetReceived().GetNotification()
		expired = sent > s.notified[a] && p.GetGracefulRestart().GetPeerRestarting()
	})
	return expired
}

// began looks at a session that has just begun: it remembers how many
// NOTIFICATIONs were sent before, and reports whether a peer whose routes are
// kept for its restart came back without the graceful restart capability.
func (s *server) began(ctx context.Context, a netip.Addr) (forgot bool) {
	s.inspect(ctx, a, func(p *api.Peer) {
		s.notified[a] = p.GetState().GetMessages().GetSent().GetNotification()
		capable := false
		caps, err := apiutil.UnmarshalCapabilities(p.GetState().GetRemoteCap())
		for _, c := range caps {
			capable = capable || c.Code() == packet.BGP_CAP_GRACEFUL_RESTART
		}
		forgot = err == nil && !capable && p.GetGracefulRestart().GetPeerRestarting()
	})
	return forgot
}

func (s *server) inspect(ctx context.Context, a netip.Addr, check func(*api.Peer)) {
	if err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: a.String()}, check); err != nil {
		s.log.Error("peer could not be looked at", "peer", a, "error", err)
	}
}
