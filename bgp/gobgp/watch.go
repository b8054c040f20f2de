package gobgp

import (
	"context"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
)

// watch subscribes to the RIB and to the sessions.
func (s *server) watch(rib *learned, sessions *sessions) error {
	if err := s.watchRIB(rib); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.evCancel = cancel
	err := s.bgp.WatchEvent(ctx, gobgp.WatchEventMessageCallbacks{
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, t time.Time) { sessions.event(e, t) },
		OnPathEor:    func(p *apiutil.Path, _ time.Time) { sessions.endOfRIB(p) },
	}, gobgp.WatchPeer(), gobgp.WatchEor(true))
	if err != nil {
		cancel()
		return fmt.Errorf("watch bgp sessions: %w", err)
	}
	return nil
}

// watchRIB subscribes to best paths, in place of an earlier subscription. The
// new one begins with the whole table, so nothing is lost in between.
func (s *server) watchRIB(rib *learned) error {
	if s.ribCancel != nil {
		s.ribCancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ribCancel = cancel
	sub := rib.subscribe()
	err := s.bgp.WatchEvent(ctx, gobgp.WatchEventMessageCallbacks{
		OnBestPath: func(ps []*apiutil.Path, _ time.Time) { sub.paths(ps) },
	}, gobgp.WatchBestPath(true))
	if err != nil {
		cancel()
		return fmt.Errorf("watch best paths: %w", err)
	}
	return nil
}
