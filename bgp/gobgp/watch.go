package gobgp

import (
	"context"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"

	"github.com/muslin-net/muslin/pkg/model"
)

// watch subscribes to the RIB and to the sessions.
func (s *server) watch(rib *learned, sessions *sessions) error {
	if err := s.watchRIB(rib, sessions); err != nil {
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

// watchRIB subscribes to best paths, in place of an earlier subscription, and
// then lists the table: what changes in between is in the events, which are
// applied after the list. GoBGP's own "current" snapshot is not used, since it
// reads the table without its locks.
func (s *server) watchRIB(rib *learned, sessions *sessions) error {
	if s.ribCancel != nil {
		s.ribCancel()
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.ribCancel = cancel
	sub := rib.subscribe()
	err := s.bgp.WatchEvent(ctx, gobgp.WatchEventMessageCallbacks{
		OnBestPath: func(ps []*apiutil.Path, _ time.Time) {
			sub.paths(ps)
			sessions.paths(ps, time.Now())
		},
	}, gobgp.WatchBestPath(false))
	if err != nil {
		cancel()
		return fmt.Errorf("watch best paths: %w", err)
	}
	var best []*apiutil.Path
	for _, f := range model.Families {
		req := apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: family(f)}
		err := s.bgp.ListPath(req, func(_ packet.NLRI, paths []*apiutil.Path) {
			for _, p := range paths {
				if p.Best {
					best = append(best, p)
				}
			}
		})
		if err != nil {
			cancel()
			return fmt.Errorf("list best paths: %w", err)
		}
	}
	sub.listed(best)
	return nil
}
