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
	pace *pace

	mu     sync.Mutex
	routes map[netip.Prefix][]hop
	list   []model.Learned // of routes; nil when it has to be made from scratch
	dirty  []netip.Prefix  // where list is no longer right; some twice
	forCfg *bgp.Config     // the configuration list was made for
	sub    *subscription   // the one whose events count
	held   map[netip.Addr]bool

	// Lists of one, shared by all routes that have the same: most have.
	single map[hop][]hop
	alone  map[netip.Addr][]netip.Addr
}

// hop is one path of an equal-cost set. Lists of hops are never changed, only
// replaced.
type hop struct {
	peer    netip.Addr
	pathID  uint32
	nextHop netip.Addr
	stale   bool
	ghost   bool // withdrawn while its peer was held
}

func newLearned(hint func()) *learned {
	return &learned{
		hint: hint, pace: newPace(hint), routes: map[netip.Prefix][]hop{}, held: map[netip.Addr]bool{},
		single: map[hop][]hop{}, alone: map[netip.Addr][]netip.Addr{},
	}
}

func (l *learned) clear() {
	l.mu.Lock()
	l.routes, l.list, l.sub = map[netip.Prefix][]hop{}, nil, nil
	clear(l.single)
	clear(l.alone)
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
	l.pace.changed(len(l.dirty), len(l.routes))
}

// listed takes the whole table, and then what changed meanwhile.
func (s *subscription) listed(ps []*apiutil.Path) {
	l := s.into
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub != s {
		return
	}
	l.routes, l.list, l.dirty = ghosts(l.routes), nil, nil
	clear(l.single)
	clear(l.alone)
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
	l.mark(prefix)
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
	case len(hops) <= 1 && i == len(hops)-1:
		hops = l.only(hop{peer: p.PeerAddress, pathID: p.RemoteID, nextHop: nh, stale: p.Stale})
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

// mark notes that list is no longer right. A list that nobody has asked for
// while everything changed twice is made from scratch.
func (l *learned) mark(prefix netip.Prefix) {
	if len(l.dirty) > most && len(l.dirty) > 2*(len(l.routes)+len(l.list)) {
		l.list, l.dirty = nil, nil
	}
	l.dirty = append(l.dirty, prefix)
}

// only is the list of one hop.
func (l *learned) only(h hop) []hop {
	list, ok := l.single[h]
	if !ok {
		list = []hop{h}
		l.single[h] = list
	}
	return list
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

// nextHop is the path's next hop. One that says nothing ("::" of a router
// without a global address) is the peer's own, where that is link-local: GoBGP
// drops the link-local next hop that comes with it.
func nextHop(p *apiutil.Path) netip.Addr {
	for _, a := range p.Attrs {
		switch v := a.(type) {
		case *packet.PathAttributeNextHop:
			return v.Value.Unmap()
		case *packet.PathAttributeMpReachNLRI:
			nh := v.Nexthop
			switch zone := p.PeerAddress.Zone(); {
			case zone == "":
			case nh.IsUnspecified():
				nh = p.PeerAddress
			case nh.IsLinkLocalUnicast():
				nh = nh.WithZone(zone)
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
		old, changed = nil, make([]netip.Prefix, 0, len(l.routes))
		for p := range l.routes {
			changed = append(changed, p)
		}
	} else if len(changed) == 0 {
		return old
	}
	slices.SortFunc(changed, comparePrefixes)
	w := writer{l: l, cfg: cfg, mesh: map[netip.Addr]bool{}, out: make([]model.Learned, 0, min(len(old)+len(changed), len(l.routes)))}
	for _, p := range cfg.Peers {
		w.mesh[p.Address] = p.Kind == bgp.KindMesh
	}
	w.merge(old, slices.Compact(changed))
	l.list, l.forCfg, l.dirty = w.out, cfg, nil
	l.pace.looked()
	return l.list
}

// writer makes a list of learned routes.
type writer struct {
	l    *learned
	cfg  *bgp.Config
	mesh map[netip.Addr]bool // peers, and whether they are of the mesh
	out  []model.Learned
}

// merge takes over what old says of all prefixes but the changed ones. Both are
// sorted, and so is the result.
func (w *writer) merge(old []model.Learned, changed []netip.Prefix) {
	for _, p := range changed {
		i, there := ahead(old, p)
		w.out = append(w.out, old[:i]...)
		if old = old[i:]; there {
			old = old[1:]
		}
		if hops, ok := w.l.routes[p]; ok && !insideAny(w.cfg.NoInstall, p) {
			w.out = append(w.out, w.route(p, hops))
		}
	}
	w.out = append(w.out, old...)
}

// ahead finds p's place in a list, as BinarySearch does, at a price that grows
// with the distance: in a burst the next one is a few places off.
func ahead(list []model.Learned, p netip.Prefix) (int, bool) {
	from, to := 0, 1
	for to <= len(list) && comparePrefixes(list[to-1].Prefix, p) < 0 {
		from, to = to, 2*to
	}
	i, there := slices.BinarySearchFunc(list[from:min(to, len(list))], p, func(o model.Learned, p netip.Prefix) int { return comparePrefixes(o.Prefix, p) })
	return from + i, there
}

func comparePrefixes(x, y netip.Prefix) int {
	if c := x.Addr().Compare(y.Addr()); c != 0 {
		return c
	}
	return cmp.Compare(x.Bits(), y.Bits())
}

func byPrefix(x, y model.Learned) int { return comparePrefixes(x.Prefix, y.Prefix) }

// route joins the hops of a prefix: next hops sorted and unique, each with the
// lowest peer that told of it.
func (w *writer) route(prefix netip.Prefix, hops []hop) model.Learned {
	if len(hops) == 1 {
		h := hops[0]
		return model.Learned{Prefix: prefix, NextHops: w.l.one(h.nextHop), From: w.l.one(h.peer), Mesh: w.mesh[h.peer], Stale: h.stale}
	}
	hops = slices.Clone(living(hops))
	slices.SortFunc(hops, func(x, y hop) int {
		return cmp.Or(x.nextHop.Compare(y.nextHop), x.peer.Compare(y.peer))
	})
	hops = slices.CompactFunc(hops, func(x, y hop) bool { return x.nextHop == y.nextHop })
	if w.cfg.MaxPaths > 0 && len(hops) > w.cfg.MaxPaths {
		hops = hops[:w.cfg.MaxPaths]
	}
	r := model.Learned{Prefix: prefix, NextHops: make([]netip.Addr, len(hops)), From: make([]netip.Addr, len(hops)), Mesh: true}
	for i, h := range hops {
		r.NextHops[i], r.From[i] = h.nextHop, h.peer
		r.Mesh = r.Mesh && w.mesh[h.peer]
		r.Stale = r.Stale || h.stale
	}
	return r
}

// one is the list of one address.
func (l *learned) one(a netip.Addr) []netip.Addr {
	list, ok := l.alone[a]
	if !ok {
		list = []netip.Addr{a}
		l.alone[a] = list
	}
	return list
}

func insideAny(ps []netip.Prefix, p netip.Prefix) bool {
	for _, q := range ps {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
