package gobgp

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// learned is a copy of the best paths that came from peers, kept up to date by
// GoBGP's events, so that reading it costs the server nothing.
type learned struct {
	hint func()

	mu     sync.Mutex
	routes map[netip.Prefix][]hop
	list   []model.Learned       // of routes; nil when it has to be made from scratch
	dirty  map[netip.Prefix]bool // where list is no longer right
	forCfg *bgp.Config           // the configuration list was made for
	sub    *subscription         // the one whose events count
	held   map[netip.Addr]bool
}

// hop is one path of an equal-cost set.
type hop struct {
	peer    netip.Addr
	pathID  uint32
	nextHop netip.Addr
	stale   bool
	ghost   bool // withdrawn while its peer was held
}

func newLearned(hint func()) *learned {
	return &learned{hint: hint, routes: map[netip.Prefix][]hop{}, held: map[netip.Addr]bool{}, dirty: map[netip.Prefix]bool{}}
}

func (l *learned) clear() {
	l.mu.Lock()
	l.routes, l.list, l.sub = map[netip.Prefix][]hop{}, nil, nil
	l.mu.Unlock()
	l.hint()
}

// subscription receives the events of one watch. They wait until the table has
// been listed, which replaces what was there.
type subscription struct {
	into    *learned
	begun   bool
	waiting []*apiutil.Path
}

// subscribe ends the say of the subscription before.
func (l *learned) subscribe() *subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sub = &subscription{into: l}
	return l.sub
}

// paths takes changed paths.
func (s *subscription) paths(ps []*apiutil.Path) {
	l := s.into
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.sub != s:
		return
	case !s.begun:
		s.waiting = append(s.waiting, ps...)
		return
	}
	for _, p := range ps {
		l.update(p)
	}
	l.hint()
}

// listed takes the whole table, and then what changed meanwhile.
func (s *subscription) listed(ps []*apiutil.Path) {
	l := s.into
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub != s {
		return
	}
	l.routes, l.list = ghosts(l.routes), nil
	for _, p := range append(ps, s.waiting...) {
		l.update(p)
	}
	s.begun, s.waiting = true, nil
	l.hint()
}

// update applies one changed path. Own paths are not learned: when one becomes
// the best, GoBGP reports the peers' as withdrawn.
func (l *learned) update(p *apiutil.Path) {
	nlri, ok := p.Nlri.(*packet.IPAddrPrefix)
	if !ok || !p.PeerAddress.IsValid() {
		return
	}
	prefix := nlri.Prefix
	l.dirty[prefix] = true
	hops := l.routes[prefix]
	i := slices.IndexFunc(hops, func(h hop) bool { return h.peer == p.PeerAddress && h.pathID == p.RemoteID })
	switch nh := nextHop(p); {
	case p.Withdrawal && i >= 0 && l.held[p.PeerAddress]:
		hops = slices.Clone(hops)
		hops[i].ghost, hops[i].stale = true, true
	case p.Withdrawal || !nh.IsValid():
		if i < 0 {
			return
		}
		hops = slices.Delete(slices.Clone(hops), i, i+1)
	case i < 0:
		hops = append(hops[:len(hops):len(hops)], hop{peer: p.PeerAddress, pathID: p.RemoteID, nextHop: nh, stale: p.Stale})
	default:
		hops = slices.Clone(hops)
		hops[i] = hop{peer: p.PeerAddress, pathID: p.RemoteID, nextHop: nh, stale: p.Stale}
	}
	if len(hops) == 0 {
		delete(l.routes, prefix)
		return
	}
	l.routes[prefix] = hops
}

// hold keeps what a peer told while its session is made anew: withdrawn
// routes stay, as stale ones, wherever nobody else has taken their place.
func (l *learned) hold(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[peer] = true
}

// release ends hold: what the peer has not told again goes.
func (l *learned) release(peer netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.held[peer] {
		return
	}
	delete(l.held, peer)
	for prefix, hops := range l.routes {
		hops = slices.DeleteFunc(slices.Clone(hops), func(h hop) bool { return h.ghost && h.peer == peer })
		if len(hops) == 0 {
			delete(l.routes, prefix)
		} else {
			l.routes[prefix] = hops
		}
	}
	l.list = nil
	l.hint()
}

// ghosts are the held routes, which a listing of the RIB no longer shows.
func ghosts(routes map[netip.Prefix][]hop) map[netip.Prefix][]hop {
	out := make(map[netip.Prefix][]hop, len(routes))
	for prefix, hops := range routes {
		for _, h := range hops {
			if h.ghost {
				out[prefix] = append(out[prefix], h)
			}
		}
	}
	return out
}

// living drops ghosts where there is anything else.
func living(hops []hop) []hop {
	alive := slices.DeleteFunc(slices.Clone(hops), func(h hop) bool { return h.ghost })
	if len(alive) == 0 {
		return hops
	}
	return alive
}

// nextHop is the path's next hop; for IPv6 the link-local one of two is used
// only when there is no other.
func nextHop(p *apiutil.Path) netip.Addr {
	for _, a := range p.Attrs {
		switch v := a.(type) {
		case *packet.PathAttributeNextHop:
			return v.Value.Unmap()
		case *packet.PathAttributeMpReachNLRI:
			nh := v.Nexthop
			if (!nh.IsValid() || nh.IsUnspecified()) && v.LinkLocalNexthop.IsValid() {
				nh = v.LinkLocalNexthop
			}
			if nh.IsLinkLocalUnicast() && p.PeerAddress.Zone() != "" {
				nh = nh.WithZone(p.PeerAddress.Zone())
			}
			return nh.Unmap()
		}
	}
	return netip.Addr{}
}

// snapshot lists the learned routes by prefix. The slice must not be changed.
// Only what changed since the last call is made anew and sorted.
func (l *learned) snapshot(cfg *bgp.Config) []model.Learned {
	l.mu.Lock()
	defer l.mu.Unlock()
	old, changed := l.list, l.dirty
	if old == nil || l.forCfg != cfg {
		old = nil
		changed = make(map[netip.Prefix]bool, len(l.routes))
		for p := range l.routes {
			changed[p] = true
		}
	} else if len(changed) == 0 {
		return old
	}
	mesh := map[netip.Addr]bool{}
	for _, p := range cfg.Peers {
		mesh[p.Address] = p.Kind == bgp.KindMesh
	}
	fresh := make([]model.Learned, 0, len(changed))
	for p := range changed {
		if hops, ok := l.routes[p]; ok && !insideAny(cfg.NoInstall, p) {
			fresh = append(fresh, route(p, hops, mesh, cfg.MaxPaths))
		}
	}
	slices.SortFunc(fresh, byPrefix)
	l.list, l.forCfg, l.dirty = merge(old, fresh, changed), cfg, map[netip.Prefix]bool{}
	return l.list
}

// merge puts fresh in place of what old says of the changed prefixes. Both are
// sorted, and so is the result.
func merge(old, fresh []model.Learned, changed map[netip.Prefix]bool) []model.Learned {
	if len(old) == 0 {
		return fresh
	}
	out := make([]model.Learned, 0, len(old)+len(fresh))
	for _, o := range old {
		if changed[o.Prefix] {
			continue
		}
		for len(fresh) > 0 && byPrefix(fresh[0], o) < 0 {
			out, fresh = append(out, fresh[0]), fresh[1:]
		}
		out = append(out, o)
	}
	return append(out, fresh...)
}

func byPrefix(x, y model.Learned) int {
	return cmp.Or(x.Prefix.Addr().Compare(y.Prefix.Addr()), cmp.Compare(x.Prefix.Bits(), y.Prefix.Bits()))
}

// route joins the hops of a prefix: next hops sorted and unique, each with the
// lowest peer that told of it.
func route(prefix netip.Prefix, hops []hop, mesh map[netip.Addr]bool, maxPaths int) model.Learned {
	if len(hops) > 1 {
		hops = slices.Clone(living(hops))
		slices.SortFunc(hops, func(x, y hop) int {
			return cmp.Or(x.nextHop.Compare(y.nextHop), x.peer.Compare(y.peer))
		})
		hops = slices.CompactFunc(hops, func(x, y hop) bool { return x.nextHop == y.nextHop })
	}
	if maxPaths > 0 && len(hops) > maxPaths {
		hops = hops[:maxPaths]
	}
	r := model.Learned{Prefix: prefix, NextHops: make([]netip.Addr, len(hops)), From: make([]netip.Addr, len(hops)), Mesh: true}
	for i, h := range hops {
		r.NextHops[i], r.From[i] = h.nextHop, h.peer
		r.Mesh = r.Mesh && mesh[h.peer]
		r.Stale = r.Stale || h.stale
	}
	return r
}

func insideAny(ps []netip.Prefix, p netip.Prefix) bool {
	for _, q := range ps {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
