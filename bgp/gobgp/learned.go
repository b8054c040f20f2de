package gobgp

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	packet "github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// learned is a copy of the best paths that came from peers, kept up to date by
// GoBGP's events, so that reading it costs the server nothing.
type learned struct {
	notify    func()
	debouncer *debouncer

	mu     sync.Mutex
	routes map[netip.Prefix]*pathSet
	list   []model.Learned // of routes; nil when it has to be made from scratch
	dirty  []netip.Prefix  // where list is no longer right; some twice
	forCfg *bgp.Config     // the configuration list was made for
	sub    *subscription   // the one whose events count
	held   map[netip.Addr]bool

	odd     map[oddity]netip.Prefix // each with an example; at most mostOdd
	blocks  []bgp.PrefixRange       // see bgp.Config
	origins []model.ASN

	single map[hop]*pathSet            // those of one path, shared by all routes that have the same: most have
	equal  map[string]*model.Multipath // those of several, by what they say
}

// mostEqual bounds how many multipaths of several next hops are remembered: those
// of routers that are long gone are among them.
const mostEqual = 4096

// pathSet is the equal-cost set of a prefix. Its hops are never changed: the
// prefix gets another set.
type pathSet struct {
	hops     []hop
	reported *model.Multipath // what Learned says of it under forCfg
	forCfg   *bgp.Config
}

// hop is one path of an equal-cost set.
type hop struct {
	peer      netip.Addr
	pathID    uint32
	nextHop   netip.Addr
	stale     bool
	withdrawn bool // withdrawn while its peer was held
}

func newLearned(notify func()) *learned {
	return &learned{
		notify: notify, debouncer: newDebouncer(notify), routes: map[netip.Prefix]*pathSet{}, held: map[netip.Addr]bool{},
		odd: map[oddity]netip.Prefix{}, single: map[hop]*pathSet{}, equal: map[string]*model.Multipath{},
	}
}

func (l *learned) clear() {
	l.mu.Lock()
	l.routes, l.list, l.sub = map[netip.Prefix]*pathSet{}, nil, nil
	clear(l.single)
	clear(l.odd)
	l.mu.Unlock()
	l.notify()
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
	l.debouncer.changed(len(l.dirty), len(l.routes))
}

// listed takes the whole table, and then what changed meanwhile.
func (s *subscription) listed(ps []*apiutil.Path) {
	l := s.into
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sub != s {
		return
	}
	l.list, l.dirty = nil, nil
	clear(l.single)
	clear(l.odd)
	l.keepWithdrawn()
	for _, p := range append(ps, s.waiting...) {
		l.update(p)
	}
	s.begun, s.waiting = true, nil
	l.notify()
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
	l.check(p, prefix)
	hops := l.hops(prefix)
	i := slices.IndexFunc(hops, func(h hop) bool { return h.peer == p.PeerAddress && h.pathID == p.RemoteID })
	h := hop{peer: p.PeerAddress, pathID: p.RemoteID, nextHop: nextHop(p), stale: p.Stale}
	switch {
	case p.Withdrawal && i >= 0 && l.held[p.PeerAddress]:
		hops = slices.Clone(hops)
		hops[i].withdrawn, hops[i].stale = true, true
	case p.Withdrawal || !usable(h.nextHop, prefix):
		if i < 0 {
			return
		}
		hops = slices.Delete(slices.Clone(hops), i, i+1)
	case len(hops) <= 1 && i == len(hops)-1:
		l.routes[prefix] = l.only(h)
		return
	case i < 0:
		hops = append(hops[:len(hops):len(hops)], h)
	default:
		hops = slices.Clone(hops)
		hops[i] = h
	}
	l.put(prefix, hops)
}

// hops are the paths of a prefix.
func (l *learned) hops(prefix netip.Prefix) []hop {
	if set := l.routes[prefix]; set != nil {
		return set.hops
	}
	return nil
}

// put gives a prefix other paths, or none.
func (l *learned) put(prefix netip.Prefix, hops []hop) {
	switch len(hops) {
	case 0:
		delete(l.routes, prefix)
	case 1:
		l.routes[prefix] = l.only(hops[0])
	default:
		l.routes[prefix] = &pathSet{hops: hops}
	}
}

// mark notes that list is no longer right. A list that nobody has asked for
// while everything changed twice is made from scratch.
func (l *learned) mark(prefix netip.Prefix) {
	if len(l.dirty) > most && len(l.dirty) > 2*(len(l.routes)+len(l.list)) {
		l.list, l.dirty = nil, nil
	}
	l.dirty = append(l.dirty, prefix)
}

// only is the set of one hop.
func (l *learned) only(h hop) *pathSet {
	set, ok := l.single[h]
	if !ok {
		set = &pathSet{hops: []hop{h}}
		l.single[h] = set
	}
	return set
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
	gone := func(h hop) bool { return h.withdrawn && h.peer == peer }
	for prefix, set := range l.routes {
		if slices.ContainsFunc(set.hops, gone) {
			l.put(prefix, slices.DeleteFunc(slices.Clone(set.hops), gone))
		}
	}
	l.list = nil
	l.notify()
}

// keepWithdrawn drops all but the held routes, which a listing of the RIB no longer
// shows.
func (l *learned) keepWithdrawn() {
	before := l.routes
	l.routes = make(map[netip.Prefix]*pathSet, len(before))
	for prefix, set := range before {
		l.put(prefix, slices.DeleteFunc(slices.Clone(set.hops), func(h hop) bool { return !h.withdrawn }))
	}
}

// living drops ghosts where there is anything else.
func living(hops []hop) []hop {
	alive := slices.DeleteFunc(slices.Clone(hops), func(h hop) bool { return h.withdrawn })
	if len(alive) == 0 {
		return hops
	}
	return alive
}

// nextHop is the path's next hop. One that says nothing ("::" of a router without a
// global address) is the peer's own, where that is link-local.
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
			case nh.Is6() && nh.IsLinkLocalUnicast():
				nh = nh.WithZone(zone)
			}
			return nh.Unmap()
		}
	}
	return netip.Addr{}
}

// usable reports whether a next hop can lead to a prefix: the kernel has no IPv6
// routes by way of an IPv4 neighbour, though a router may announce them
// (::ffff:192.0.2.1).
func usable(nh netip.Addr, prefix netip.Prefix) bool {
	return nh.IsValid() && (prefix.Addr().Is4() || nh.Is6())
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
	w := writer{l: l, cfg: cfg, peers: map[netip.Addr]bgp.Peer{}, out: make([]model.Learned, 0, min(len(old)+len(changed), len(l.routes)))}
	for _, p := range cfg.Peers {
		w.peers[p.Address] = p
	}
	w.merge(old, slices.Compact(changed))
	l.list, l.forCfg, l.dirty = w.out, cfg, nil
	l.debouncer.checked()
	return l.list
}

// writer makes a list of learned routes.
type writer struct {
	l     *learned
	cfg   *bgp.Config
	peers map[netip.Addr]bgp.Peer
	out   []model.Learned
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
		if set := w.l.routes[p]; set != nil && !insideAny(w.cfg.NoInstall, p) {
			w.out = append(w.out, model.Learned{Prefix: p, Multipath: w.multipath(set)})
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

// multipath is what there is to say of a set. It is made once for all prefixes
// that share it.
func (w *writer) multipath(set *pathSet) *model.Multipath {
	if set.reported == nil || set.forCfg != w.cfg {
		set.reported, set.forCfg = w.join(set.hops), w.cfg
	}
	return set.reported
}

// join makes next hops of paths: sorted and unique, each with the lowest peer
// that told of it.
func (w *writer) join(hops []hop) *model.Multipath {
	hops = slices.Clone(living(hops))
	for i := range hops {
		hops[i].nextHop = w.gateway(hops[i])
	}
	slices.SortFunc(hops, func(x, y hop) int {
		return cmp.Or(x.nextHop.Compare(y.nextHop), x.peer.Compare(y.peer))
	})
	hops = slices.CompactFunc(hops, func(x, y hop) bool { return x.nextHop == y.nextHop })
	if w.cfg.MaxPaths > 0 && len(hops) > w.cfg.MaxPaths {
		hops = hops[:w.cfg.MaxPaths]
	}
	m := &model.Multipath{NextHops: make([]netip.Addr, len(hops)), From: make([]netip.Addr, len(hops)), Mesh: true}
	for i, h := range hops {
		m.NextHops[i], m.From[i] = h.nextHop, h.peer
		m.Mesh = m.Mesh && w.peers[h.peer].Kind == model.PeerMesh
		m.Stale = m.Stale || h.stale
	}
	return w.l.same(m)
}

// gateway is the next hop of a path as this node gets there. An external peer known
// by its link-local address is itself the way to what it announces, unless it names
// somebody on the same subnet: it may put an address there that only it knows, and
// the link-local one beside it (RFC 2545 section 3), which GoBGP drops. A link-local
// address from a numbered neighbour is one on its link.
func (w *writer) gateway(h hop) netip.Addr {
	p := w.peers[h.peer]
	switch {
	case h.nextHop.Zone() != "":
	case h.peer.Zone() != "" && p.External() && !p.Link.Holds(h.nextHop):
		return h.peer
	case h.nextHop.Is6() && h.nextHop.IsLinkLocalUnicast():
		return h.nextHop.WithZone(p.Link.Name)
	}
	return h.nextHop
}

// same is the multipath that said the same before, or m.
func (l *learned) same(m *model.Multipath) *model.Multipath {
	if len(m.NextHops) == 1 {
		return m // its set is shared
	}
	id := make([]byte, 0, 128)
	for i, nh := range m.NextHops {
		id = append(m.From[i].AppendTo(append(nh.AppendTo(id), ' ')), ' ')
	}
	id = strconv.AppendBool(strconv.AppendBool(id, m.Mesh), m.Stale)
	if known, ok := l.equal[string(id)]; ok {
		return known
	}
	if len(l.equal) >= mostEqual {
		clear(l.equal)
	}
	l.equal[string(id)] = m
	return m
}

func insideAny(ps []netip.Prefix, p netip.Prefix) bool {
	for _, q := range ps {
		if q.Bits() <= p.Bits() && q.Contains(p.Addr()) {
			return true
		}
	}
	return false
}
