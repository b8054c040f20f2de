package gobgp

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

const connectRetry = 2 // seconds; GoBGP dials after this much and then within 0.75 to 1 times it

// peerDiff is what to do to come from the sessions in force to others.
type peerDiff struct {
	remove      []bgp.Peer // gone, or to be made anew
	add         []bgp.Peer
	silentReset []bgp.Peer // to be made anew without the peer noticing
	update      []bgp.Peer // timers, limits, BFD: no reset
	refresh     []refresh  // policies that read differently
}

type refresh struct {
	peer    netip.Addr
	in, out bool
	want    used
}

// used are the policies that a session's routes went through.
type used struct{ in, out bgp.Policy }

// diffPeers tells a change of identity, which resets the session, from one of
// settings, which does not, and from one of policies.
func (s *server) diffPeers(cfg bgp.Config) peerDiff {
	var d peerDiff
	wanted := map[netip.Addr]bool{}
	policies := byID(cfg.Policies)
	for _, p := range cfg.Peers {
		wanted[p.Address] = true
		q, ok := s.peers[p.Address]
		switch {
		case !ok:
			d.add = append(d.add, p)
			continue
		case p.InCluster && onlyReflectionDiffers(q, p):
			d.silentReset = append(d.silentReset, p)
			continue
		case identity(p) != identity(q):
			d.remove = append(d.remove, q)
			d.add = append(d.add, p)
			continue
		case settings(p) != settings(q):
			d.update = append(d.update, p)
		}
		have, want := s.ran[p.Address], used{policies[policyID{bgp.Import, p.Import}], policies[policyID{bgp.Export, p.Export}]}
		r := refresh{peer: p.Address, in: !bgp.SamePolicies(have.in, want.in), out: !bgp.SamePolicies(have.out, want.out), want: want}
		if r.in || r.out {
			d.refresh = append(d.refresh, r)
		}
	}
	for _, p := range s.peers {
		if !wanted[p.Address] {
			d.remove = append(d.remove, p)
		}
	}
	return d
}

// identityKey is what a session is: with another one the peer must be met
// anew.
type identityKey struct {
	address, local netip.Addr
	port           int
	asn, localASN  model.ASN
	passive        bool
	password       model.Secret
	families       string
	restart        time.Duration
	noRestart      bool
	allowed, hops  int
	multihop       int
	client         bool
	cluster        netip.Addr
}

func identity(p bgp.Peer) identityKey {
	return identityKey{
		address: p.Address, local: p.LocalAddress, port: p.Port, asn: p.ASN, localASN: p.LocalASN,
		passive: p.Passive, password: p.Password, families: fmt.Sprint(p.Families), restart: p.RestartTime,
		noRestart: p.NoRestart, multihop: p.Multihop,
		allowed: p.AllowedLocalASNs, hops: p.TTLSecurity, client: p.ReflectorClient, cluster: p.ClusterID,
	}
}

// settingsKey is what can change under a session. A hold time counts from the
// next session on, since it is agreed on when a session opens.
type settingsKey struct {
	hold, keepalive time.Duration
	retry           time.Duration
	limit           int
	bfd             bgp.BFD
}

func settings(p bgp.Peer) settingsKey {
	k := settingsKey{hold: p.HoldTime, keepalive: p.Keepalive, retry: p.ConnectRetry, limit: p.PrefixLimit}
	if p.BFD != nil {
		k.bfd = *p.BFD
	}
	return k
}

func (s *server) addPeer(ctx context.Context, p bgp.Peer, deferral time.Duration, restarting bool) error {
	if err := s.bgp.AddPeer(ctx, &api.AddPeerRequest{Peer: apiPeer(unwatched(p), deferral, restarting)}); err != nil {
		return fmt.Errorf("add peer %s: %w", p.Address, err)
	}
	s.peers[p.Address] = p
	s.ran[p.Address] = used{s.policies[policyID{bgp.Import, p.Import}], s.policies[policyID{bgp.Export, p.Export}]}
	return nil
}

// updatePeer changes the settings of a session; settled tells whether it has
// stood for watchAfter.
func (s *server) updatePeer(ctx context.Context, p bgp.Peer, deferral time.Duration, settled bool) error {
	if err := s.watchPeer(ctx, p, deferral, settled); err != nil {
		return err
	}
	s.peers[p.Address] = p
	return nil
}

// watchPeer has a session that has settled watched by BFD, if it is to be, and
// lets go of one that has not. GoBGP's BFD resets a peer's session also when it is
// only being opened, and a router that knows of a peer no sooner than its
// session is up (a dynamic neighbour) starts its BFD then: the two would keep
// each other down for good.
func (s *server) watchPeer(ctx context.Context, p bgp.Peer, deferral time.Duration, settled bool) error {
	q := p
	if !settled {
		q = unwatched(p)
	}
	if _, err := s.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: apiPeer(q, deferral, false)}); err != nil {
		return fmt.Errorf("update peer %s: %w", p.Address, err)
	}
	return nil
}

// unwatched is a peer without BFD.
func unwatched(p bgp.Peer) bgp.Peer {
	p.BFD = nil
	return p
}

func (s *server) deletePeer(ctx context.Context, p bgp.Peer) error {
	if err := s.forgetPassword(ctx, p); err != nil {
		return err
	}
	if err := s.bgp.DeletePeer(ctx, &api.DeletePeerRequest{Address: p.Address.String()}); err != nil {
		return fmt.Errorf("delete peer %s: %w", p.Address, err)
	}
	delete(s.peers, p.Address)
	delete(s.ran, p.Address)
	delete(s.notified, p.Address)
	delete(s.refusals, p.Address)
	return nil
}

// forgetPassword takes a peer's key off the listener. GoBGP's DeletePeer leaves
// it there, and a peer that speaks without a password is then never heard again;
// a change of the password takes the old one off.
func (s *server) forgetPassword(ctx context.Context, p bgp.Peer) error {
	if p.Password.IsZero() {
		return nil
	}
	p.Password, p.BFD = model.Secret{}, nil
	if _, err := s.bgp.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: apiPeer(p, time.Second, false)}); err != nil {
		return fmt.Errorf("forget the password of peer %s: %w", p.Address, err)
	}
	return nil
}

// refresh runs changed policies over what was already heard and said, without
// a word to the peer but the difference.
func (s *server) refresh(ctx context.Context, rs []refresh) []error {
	var errs []error
	for _, r := range rs {
		dir := api.ResetPeerRequest_DIRECTION_BOTH
		switch {
		case !r.out:
			dir = api.ResetPeerRequest_DIRECTION_IN
		case !r.in:
			dir = api.ResetPeerRequest_DIRECTION_OUT
		}
		err := s.bgp.ResetPeer(ctx, &api.ResetPeerRequest{Address: r.peer.String(), Soft: true, Direction: dir})
		if err != nil {
			errs = append(errs, fmt.Errorf("apply policies to peer %s: %w", r.peer, err))
			continue
		}
		s.ran[r.peer] = r.want
	}
	return errs
}

// revive enables a session that GoBGP closed for good because of its prefix
// limit.
func (s *server) revive(ctx context.Context, a netip.Addr) error {
	limited := false
	err := s.bgp.ListPeer(ctx, &api.ListPeerRequest{Address: a.String()}, func(p *api.Peer) {
		limited = overLimit(p)
	})
	if err == nil && limited {
		err = s.bgp.EnablePeer(ctx, &api.EnablePeerRequest{Address: a.String()})
	}
	if err != nil {
		return fmt.Errorf("enable peer %s: %w", a, err)
	}
	return nil
}

func apiPeer(p bgp.Peer, deferral time.Duration, restarting bool) *api.Peer {
	out := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: p.Address.String(),
			PeerAsn:         uint32(p.ASN),
			LocalAsn:        uint32(p.LocalASN),
			AuthPassword:    p.Password.Reveal(),
			AllowOwnAsn:     uint32(p.AllowedLocalASNs),
			Description:     p.Object.String(),
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			ConnectRetry:           cmp.Or(seconds(p.ConnectRetry), connectRetry),
			HoldTime:               seconds(p.HoldTime),
			KeepaliveInterval:      max(seconds(p.Keepalive), 1),
			IdleHoldTimeAfterReset: cmp.Or(seconds(p.ConnectRetry), connectRetry),
		}},
		Transport: &api.Transport{PassiveMode: p.Passive, RemotePort: uint32(p.Port)},
		GracefulRestart: &api.GracefulRestart{
			Enabled: !p.NoRestart, RestartTime: uint32(seconds(p.RestartTime)),
			DeferralTime: uint32(seconds(deferral)), LocalRestarting: restarting && !p.NoRestart,
		},
	}
	if p.LocalAddress.IsValid() {
		out.Transport.LocalAddress = p.LocalAddress.String()
	}
	switch {
	case p.TTLSecurity > 0:
		out.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: uint32(256 - p.TTLSecurity)}
	case p.External():
		out.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(cmp.Or(p.Multihop, 255))}
	}
	if p.ReflectorClient {
		out.RouteReflector = &api.RouteReflector{RouteReflectorClient: true, RouteReflectorClusterId: p.ClusterID.String()}
	}
	if p.BFD != nil {
		us := uint32(p.BFD.Interval.Microseconds())
		out.Bfd = &api.BfdPeerConfig{
			Enabled: true, DesiredMinimumTxInterval: us, RequiredMinimumReceive: us,
			DetectionMultiplier: uint32(p.BFD.Multiplier),
		}
	}
	for _, f := range p.Families {
		out.AfiSafis = append(out.AfiSafis, apiFamilyConfig(f, p.PrefixLimit, !p.NoRestart))
	}
	return out
}

func apiFamilyConfig(f model.Family, limit int, restart bool) *api.AfiSafi {
	a := &api.AfiSafi{
		Config:            &api.AfiSafiConfig{Family: apiFamily(f), Enabled: true},
		MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: restart}},
	}
	if limit > 0 {
		a.PrefixLimits = &api.PrefixLimit{Family: apiFamily(f), MaxPrefixes: uint32(limit)}
	}
	return a
}

func apiFamily(f model.Family) *api.Family {
	return &api.Family{Afi: model.OfFamily(f, api.Family_AFI_IP, api.Family_AFI_IP6), Safi: api.Family_SAFI_UNICAST}
}

func seconds(d time.Duration) uint64 { return uint64(d.Round(time.Second) / time.Second) }
