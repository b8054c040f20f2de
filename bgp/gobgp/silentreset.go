package gobgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/osrg/gobgp/v4/api"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
)

const (
	closeWait = 2 * time.Second  // for GoBGP to notice a closed connection
	holdMost  = 20 * time.Second // how long the routes of a peer that is made anew are kept
)

// silentReset replaces a session by one that the peer cannot tell apart, without a
// Cease: the connection just closes, so the peer keeps our routes as for a
// restart (RFC 4724), and its routes are held here until it has told them
// again. GoBGP has no call for that; it says Cease whenever a peer is deleted
// while its session stands.
func (s *Speaker) silentReset(ctx context.Context, p bgp.Peer, listenPort int) error {
	s.rib.hold(p.Address)
	s.sessions.holdUntilComplete(p.Address, time.Now().Add(holdMost))
	if err := closeConnections(p.Address, p.Port, listenPort); err != nil {
		s.log.Warn("session could not be closed quietly", "peer", p.Address, "error", err)
	} else {
		s.server.waitDown(ctx, p.Address)
	}
	return errors.Join(s.server.deletePeer(ctx, p), s.server.addPeer(ctx, p, s.opts.Deferral, true))
}

func (s *server) waitDown(ctx context.Context, a netip.Addr) {
	for end := time.Now().Add(closeWait); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		up := false
		err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: a.String()}, func(p *api.Peer) {
			up = p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED
		})
		if err != nil || !up {
			return
		}
	}
}

// closeConnections shuts down this process's TCP connections with peer that
// belong to BGP: those to its port, or from ours.
func closeConnections(peer netip.Addr, peerPort, listenPort int) error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, f := range fds {
		fd, err := strconv.Atoi(f.Name())
		if err != nil {
			continue
		}
		remote, ok := endpoint(unix.Getpeername(fd))
		if !ok || remote.Addr() != peer {
			continue
		}
		local, ok := endpoint(unix.Getsockname(fd))
		if ok && (int(remote.Port()) == peerPort || int(local.Port()) == listenPort) {
			if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
				return fmt.Errorf("shut down connection with %s: %w", remote, err)
			}
		}
	}
	return nil
}

func endpoint(sa unix.Sockaddr, err error) (netip.AddrPort, bool) {
	if err != nil {
		return netip.AddrPort{}, false
	}
	switch v := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(v.Addr), uint16(v.Port)), true
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(v.Addr).Unmap(), uint16(v.Port)), true
	}
	return netip.AddrPort{}, false
}

// complete reports whether all of ps have sent their tables.
func (s *sessions) complete(ps []bgp.Peer, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range ps {
		if v, ok := s.peers[p.Address]; p.InCluster && (!ok || !v.complete(now)) {
			return false
		}
	}
	return true
}

func (s *sessions) holdUntilComplete(a netip.Addr, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[a] = until
}

// endedHolds gives the peers whose hold is over.
func (s *sessions) endedHolds(now time.Time) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	for a, until := range s.holds {
		v, ok := s.peers[a]
		if !ok || now.After(until) || v.state == packet.BGP_FSM_ESTABLISHED && v.complete(now) {
			out = append(out, a)
			delete(s.holds, a)
		}
	}
	return out
}
