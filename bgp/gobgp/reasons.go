package gobgp

import (
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

// failure is why a session ended, or does not begin: a short name for
// whoever counts, and words for whoever reads.
type failure struct{ reason, text string }

// The reasons of a model.PeerStatus.
const (
	reasonBadPeerAS    = "bad-peer-as"
	reasonOpenRefused  = "open-refused"
	reasonInvalid      = "invalid-message"
	reasonHoldTimer    = "hold-timer-expired"
	reasonReceived     = "notification-received"
	reasonSent         = "notification-sent"
	reasonClosed       = "connection-closed"
	reasonRefused      = "connection-refused"
	reasonTimedOut     = "connection-timed-out"
	reasonUnreachable  = "unreachable"
	reasonPrefixLimit  = "prefix-limit"
	reasonIdentity     = "identity-changed"
	reasonWaiting      = "waiting" // for the peer to connect
	reasonAdministered = "administrative"
	reasonInternal     = "internal-error"
	reasonOther        = "other"
)

// stays is how long an answer of the peer explains a session, though
// attempts to connect fail since: a router that refused a session may not even
// listen for a while.
const stays = 2 * time.Minute

// fails takes a new failure. One of an attempt to connect says less than what
// the peer itself said a moment ago.
func (v *session) fails(f failure, now time.Time) (changed bool) {
	if v.state != packet.BGP_FSM_ESTABLISHED && onConnecting(f) && v.failed.reason != "" && !onConnecting(v.failed) && now.Sub(v.failedAt) < stays {
		return false
	}
	changed = v.failed != f
	v.failed, v.failedAt = f, now
	return changed
}

// recovers forgets attempts that failed before the one that did not. What ended
// the session before is remembered.
func (v *session) recovers() {
	v.failedAt, v.ending = time.Time{}, failure{}
	if slices.Contains([]string{reasonRefused, reasonTimedOut, reasonUnreachable}, v.failed.reason) {
		v.failed = failure{}
	}
}

// turnedAway takes in why a session that was being opened is idle again, and
// reports whether it has to be asked for.
func (v *session) turnedAway(st apiutil.PeerState, now time.Time) (ask bool) {
	switch {
	case st.DisconnectReason == api.PeerState_DISCONNECT_REASON_UNSPECIFIED:
	case st.DisconnectReason != api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		v.fails(whyDown(v.config, st), now)
	default:
		v.refused, ask = true, true
		if v.failed.reason == "" {
			v.fails(whyDown(v.config, st), now)
		}
	}
	return ask
}

func onConnecting(f failure) bool {
	return slices.Contains([]string{reasonRefused, reasonTimedOut, reasonUnreachable, reasonClosed}, f.reason)
}

// whyLost is what ended a session that stood.
func (v *session) whyLost(st apiutil.PeerState) failure {
	if v.ending.reason != "" {
		return v.ending
	}
	return whyDown(v.config, st)
}

// whyDown is what the event of a session that is idle says.
func whyDown(p bgp.Peer, st apiutil.PeerState) failure {
	stated := noted(st.DisconnectMessage)
	switch st.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return badPeerAS(p)
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return holdTimer(p)
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED:
		return failure{reasonReceived, "the peer ended the session: " + stated}
	case api.PeerState_DISCONNECT_REASON_HARD_RESET:
		return failure{reasonReceived, "the peer ended the session: hard reset (RFC 8538)"}
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		return failure{reasonSent, "this node ended the session: " + stated}
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return failure{reasonClosed, "the connection was closed without a NOTIFICATION, as in a restart"}
	case api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return failure{reasonClosed, "the connection broke"}
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return failure{reasonInvalid, "a message that makes no sense where it came"} // for now: see whyRefused
	case api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		return failure{reasonClosed, "the peer did not come back within its restart time"}
	case api.PeerState_DISCONNECT_REASON_ADMIN_DOWN, api.PeerState_DISCONNECT_REASON_DECONFIGURED:
		return failure{reasonAdministered, "this node closed the session"}
	}
	return failure{reasonOther, stated}
}

func holdTimer(p bgp.Peer) failure {
	return failure{reasonHoldTimer, fmt.Sprintf("hold timer expired: nothing was heard from the peer for the hold time (%s, or less if it asks for less)", p.HoldTime)}
}

func badPeerAS(p bgp.Peer) failure {
	return failure{reasonBadPeerAS, fmt.Sprintf("bad peer AS: the peer says another AS number than %s, which is configured here", p.ASN)}
}

// noted makes words of GoBGP's "notification-received code 6(cease) subcode 2(administrative shutdown)".
func noted(s string) string {
	_, codes, ok := strings.Cut(s, " code ")
	if !ok {
		return s
	}
	code, sub, _ := strings.Cut(codes, " subcode ")
	inside := func(s string) string {
		_, s, _ = strings.Cut(s, "(")
		return strings.TrimSuffix(s, ")")
	}
	code, sub = inside(code), inside(sub)
	if sub == "" || sub == "undefined" || sub == code {
		return code
	}
	return code + ", " + sub
}

// whyNot makes words of what the dialler said.
func whyNot(p bgp.Peer, err string) failure {
	switch {
	case strings.Contains(err, "refused"):
		return failure{reasonRefused, fmt.Sprintf("connection refused: nothing listens on port %d of the peer, or it does not know this node", p.Port)}
	case strings.Contains(err, "timeout"), strings.Contains(err, "timed out"):
		return failure{reasonTimedOut, fmt.Sprintf("connection timed out: no answer from port %d of the peer; one with another password does not answer either", p.Port)}
	case strings.Contains(err, "no route"), strings.Contains(err, "unreachable"):
		return failure{reasonUnreachable, "the peer is not reachable: " + lastPart(err)}
	case strings.Contains(err, "cannot assign"):
		return failure{reasonOther, fmt.Sprintf("the node does not have the address %s", p.LocalAddress)}
	}
	return failure{reasonClosed, "no connection: " + lastPart(err)}
}

func lastPart(s string) string { return strings.TrimSpace(s[strings.LastIndex(s, ": ")+1:]) }

// whyRefused looks at a peer whose session ended while it was opened. Of a
// NOTIFICATION that comes then GoBGP keeps no more than that it came.
func (s *server) whyRefused(ctx context.Context, want bgp.Peer) (f failure) {
	s.inspect(ctx, want.Address, func(p *api.Peer) {
		in := p.GetState().GetMessages().GetReceived().GetNotification()
		if in == s.refusals[want.Address] {
			f = failure{reasonInvalid, "the peer's answer to the OPEN makes no sense"}
			return
		}
		s.refusals[want.Address] = in
		f = failure{reasonOpenRefused, fmt.Sprintf("the peer refused this node's OPEN with a NOTIFICATION: it may expect another AS number than %s, support no address family that is offered (%s), or want another capability", want.LocalASN, strings.ToLower(strings.Join(model.Texts(want.Families), ", ")))}
	})
	return f
}

// explained takes what was found out about a peer that refused.
func (s *sessions) explained(a netip.Addr, f failure) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v, ok := s.peers[a]; ok && v.state != packet.BGP_FSM_ESTABLISHED && f.reason != "" && v.fails(f, time.Now()) {
		s.notify()
	}
}

// received takes what GoBGP's log says of a peer and its events do not.
func (s *sessions) received(r peerRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.peers[r.peer]
	if !ok || v.state != packet.BGP_FSM_ESTABLISHED && shutdown(r) {
		return
	}
	f := v.whyRecorded(r)
	switch {
	case v.state == packet.BGP_FSM_ESTABLISHED && v.ending.reason == "":
		v.ending = f
	case v.state != packet.BGP_FSM_ESTABLISHED && v.fails(f, time.Now()):
		s.notify()
	}
}

func (v *session) whyRecorded(r peerRecord) failure {
	stated := noted(" " + packet.NewNotificationErrorCode(r.code, r.subcode).String())
	switch {
	case r.message == logConnect:
		return whyNot(v.config, r.err)
	case r.message == logPanic:
		return failure{reasonInternal, "a message of the peer could not be handled, which is a fault of this node's: " + r.err}
	case r.message == logHold:
		return holdTimer(v.config)
	case r.message == logReceived:
		return failure{reasonReceived, "the peer ended the session: " + stated}
	case badAS(r):
		return badPeerAS(v.config)
	case v.state == packet.BGP_FSM_ESTABLISHED:
		return failure{reasonSent, "this node ended the session: " + stated}
	}
	return failure{reasonSent, "this node refused the peer's OPEN: " + stated}
}

// shutdown reports whether a record is the Cease (RFC 4486) of a peer that is
// taken away or made anew. By then its address is that of the next session, of
// which it says nothing.
func shutdown(r peerRecord) bool {
	return r.message == logSent && r.code == packet.BGP_ERROR_CEASE &&
		slices.Contains([]uint8{packet.BGP_ERROR_SUB_PEER_DECONFIGURED, packet.BGP_ERROR_SUB_HARD_RESET}, r.subcode)
}

func badAS(r peerRecord) bool {
	return r.code == packet.BGP_ERROR_OPEN_MESSAGE_ERROR && r.subcode == packet.BGP_ERROR_SUB_BAD_PEER_AS
}

// say puts the failure into a status.
func (v *session) say(st *model.PeerStatus) {
	st.LastReason, st.LastError = v.failed.reason, v.failed.text
	if st.LastReason == "" && v.config.Passive && v.state != packet.BGP_FSM_ESTABLISHED {
		st.LastReason, st.LastError = reasonWaiting, "waits for the peer to connect"
	}
}
