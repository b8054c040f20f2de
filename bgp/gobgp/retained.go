package gobgp

import (
	"net/netip"
	"time"

	"github.com/muslin-net/muslin/bgp"
)

// A cluster that changes from a mesh to route reflectors, or back, tells every
// node at about the same time, and each node's old sessions carry the others'
// routes until the new ones do. So sessions inside the cluster that are no
// longer wanted linger, and a reflector reflects on, until the sessions that
// are wanted have exchanged their tables and retainAfter has passed for
// everybody else's to do so.
const (
	retainAfter = 10 * time.Second
	retainMost  = 60 * time.Second
)

type retained struct {
	wanted   bgp.Config // without what lingers
	peers    map[netip.Addr]bgp.Peer
	deadline time.Time
	settled  time.Time // since when the wanted sessions are complete
}

// withRetained adds to cfg what lingers, and remembers cfg.
func (s *Speaker) withRetained(cfg bgp.Config, now time.Time) bgp.Config {
	wanted := byAddress(cfg.Peers)
	keep := map[netip.Addr]bgp.Peer{}
	for a, q := range s.server.peers {
		p, ok := wanted[a]
		if q.InCluster && (!ok && anyInCluster(cfg) || ok && demoted(q, p)) {
			keep[a] = q
		}
	}
	old := s.retained
	s.retained = nil
	if len(keep) == 0 {
		return cfg
	}
	s.retained = &retained{wanted: cfg, peers: keep, deadline: now.Add(retainMost)}
	if old != nil {
		s.retained.deadline = old.deadline // no change of mind prolongs it
	}
	if now.After(s.retained.deadline) {
		s.retained = nil
		return cfg
	}
	out := cfg
	out.Peers = nil
	for _, p := range cfg.Peers {
		if q, ok := keep[p.Address]; ok {
			q.Import, q.Export = p.Import, p.Export
			p = q
			delete(wanted, p.Address)
		}
		out.Peers = append(out.Peers, p)
	}
	for a, q := range keep {
		if _, ok := byAddress(cfg.Peers)[a]; !ok {
			q.Import, q.Export = policiesInCluster(cfg)
			out.Peers = append(out.Peers, q)
		}
	}
	return out
}

// endRetained takes down what lingered once that is due.
func (s *Speaker) endRetained(now time.Time) (bgp.Config, bool) {
	l := s.retained
	if l == nil {
		return bgp.Config{}, false
	}
	if !s.sessions.complete(l.wanted.Peers, now) {
		l.settled = time.Time{}
	} else if l.settled.IsZero() {
		l.settled = now
	}
	if now.Before(l.deadline) && (l.settled.IsZero() || now.Sub(l.settled) < retainAfter) {
		return bgp.Config{}, false
	}
	l.deadline = now.Add(-time.Second)
	return l.wanted, true
}

// demoted is a session that is the same but for no longer being reflected to.
func demoted(q, p bgp.Peer) bool {
	return q.ReflectorClient && !p.ReflectorClient && onlyReflectionDiffers(q, p)
}

// onlyReflectionDiffers: the peer cannot tell the two apart.
func onlyReflectionDiffers(q, p bgp.Peer) bool {
	x, y := identity(q), identity(p)
	x.client, x.cluster = y.client, y.cluster
	return x == y && identity(q) != identity(p)
}

func anyInCluster(cfg bgp.Config) bool {
	for _, p := range cfg.Peers {
		if p.InCluster {
			return true
		}
	}
	return false
}

func policiesInCluster(cfg bgp.Config) (in, out string) {
	for _, p := range cfg.Peers {
		if p.InCluster {
			return p.Import, p.Export
		}
	}
	return "", ""
}

func byAddress(ps []bgp.Peer) map[netip.Addr]bgp.Peer {
	m := make(map[netip.Addr]bgp.Peer, len(ps))
	for _, p := range ps {
		m[p.Address] = p
	}
	return m
}
