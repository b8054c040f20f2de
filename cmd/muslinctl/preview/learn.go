package preview

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// learnedPrefix is a prefix that a node learns: from another node, or from a router.
type learnedPrefix struct {
	bgp.Route
	owner  model.NodeName
	from   netip.Addr
	router bool
}

// learn gives, for every node, what it learns of the other nodes' prefixes. A
// nextHop between nodes is better than one by a router: its AS path is shorter.
//
// What routers do among themselves is not known here; they are taken to pass on
// to each other, and to every node, all that any node announces to one of them.
// dead are sessions that will not come up, with the reason.
func learn(plan Plan, dead map[model.NodeName]map[netip.Addr]string) map[model.NodeName][]learnedPrefix {
	direct := between(plan)
	fabric := toRouters(plan, direct, dead)
	out := map[model.NodeName][]learnedPrefix{}
	for n, c := range plan {
		list := direct[n]
		for _, f := range fabric {
			if f.owner == n || slices.ContainsFunc(list, func(h learnedPrefix) bool { return h.Prefix == f.Prefix && !h.router }) {
				continue
			}
			for _, p := range c.Peers {
				if dead[n][p.Address] == "" && fromRouter(c, p, f, plan[f.owner].ASN) {
					list = append(list, learnedPrefix{bgp.Route{Prefix: f.Prefix, NextHop: p.Address, LocalPref: bgp.LocalPref}, f.owner, p.Address, true})
				}
			}
		}
		slices.SortFunc(list, func(a, b learnedPrefix) int {
			return cmp.Or(a.Prefix.Compare(b.Prefix), a.from.Compare(b.from))
		})
		out[n] = list
	}
	return out
}

// router reports a peer outside the cluster.
func router(p bgp.Peer) bool { return !p.InCluster && p.External() }

// fromRouter tells whether a node takes a prefix of another node from a router:
// by its policy, and by the count of its own AS in the path.
func fromRouter(c bgp.Config, p bgp.Peer, f learnedPrefix, owner model.ASN) bool {
	if !router(p) || !slices.Contains(p.Families, model.FamilyOf(f.Prefix.Addr())) || owner == p.LocalASN && p.AllowedLocalASNs == 0 {
		return false
	}
	policy, ok := c.Policy(bgp.Import, p.Import)
	action, _ := policy.Decide(bgp.Route{Prefix: f.Prefix, NextHop: p.Address, LocalPref: bgp.LocalPref})
	return ok && action == bgp.Accept
}

// toRouters is what any node announces to any router, once each prefix.
func toRouters(plan Plan, direct map[model.NodeName][]learnedPrefix, dead map[model.NodeName]map[netip.Addr]string) []learnedPrefix {
	var out []learnedPrefix
	for _, n := range names(plan, nil) {
		c := plan[n]
		for _, p := range c.Peers {
			if !router(p) || dead[n][p.Address] != "" {
				continue
			}
			for _, prefix := range announced(c, p) {
				out = append(out, learnedPrefix{Route: bgp.Route{Prefix: prefix}, owner: n})
			}
			for _, prefix := range minus(side{c, direct[n]}.sends(p), announced(c, p)) {
				i := slices.IndexFunc(direct[n], func(h learnedPrefix) bool { return h.Prefix == prefix })
				out = append(out, learnedPrefix{Route: bgp.Route{Prefix: prefix}, owner: direct[n][i].owner})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b learnedPrefix) int {
		return a.Prefix.Compare(b.Prefix)
	})
	return slices.CompactFunc(out, func(a, b learnedPrefix) bool { return a.Prefix == b.Prefix })
}

// between is what nodes learn from each other: by a session configured on both
// sides, or by one reflector in between.
func between(plan Plan) map[model.NodeName][]learnedPrefix {
	owner := addresses(plan)
	out := map[model.NodeName][]learnedPrefix{}
	for _, n := range names(plan, nil) {
		c := plan[n]
		for _, p := range c.Peers {
			m, known := owner[p.Address]
			back, agreed := agreed(plan[m], p, func(a netip.Addr) bool { return owner[a] == n })
			if !known || !agreed {
				continue
			}
			for _, prefix := range announced(c, p) {
				out[m] = accepted(out[m], plan[m], back, learnedPrefix{bgp.Route{Prefix: prefix, NextHop: back.Address, LocalPref: bgp.LocalPref}, n, back.Address, false})
			}
		}
	}
	return passedOn(plan, owner, out)
}

// passedOn adds what nodes pass on: reflectors to and from their clients, with
// the owner's next hop (RFC 4456 section 10), and nodes to a node of another AS,
// with their own. The latter is as good as what the owner says itself to that
// node when that is of another AS, too: the paths are equally long.
func passedOn(plan Plan, owner map[netip.Addr]model.NodeName, direct map[model.NodeName][]learnedPrefix) map[model.NodeName][]learnedPrefix {
	out := map[model.NodeName][]learnedPrefix{}
	for n, list := range direct {
		out[n] = slices.Clone(list)
	}
	for _, r := range names(plan, nil) {
		for _, h := range direct[r] {
			source, _ := plan[r].Peer(h.from)
			for _, p := range plan[r].Peers {
				m, known := owner[p.Address]
				back, agreed := agreed(plan[m], p, func(a netip.Addr) bool { return owner[a] == r })
				policy, ok := plan[r].Policy(bgp.Export, p.Export)
				if !known || !agreed || m == h.owner || !ok || !accepts(policy, h.Route) {
					continue
				}
				next := h
				next.from = back.Address
				switch at := slices.IndexFunc(out[m], func(x learnedPrefix) bool { return x.Prefix == h.Prefix }); {
				case p.External() && (at < 0 || internal(plan[h.owner], plan[r]) && !internal(plan[m], plan[h.owner])):
					next.NextHop = back.Address
					out[m] = accepted(out[m], plan[m], back, next)
				case !p.External() && at < 0 && (p.ReflectorClient || source.ReflectorClient):
					out[m] = accepted(out[m], plan[m], back, next)
				}
			}
		}
	}
	return out
}

// internal reports nodes of one AS.
func internal(a, b bgp.Config) bool { return a.ASN == b.ASN }

func accepts(policy bgp.Policy, r bgp.Route) bool {
	action, _ := policy.Decide(r)
	return action == bgp.Accept
}

// accepted adds what a node's import policy accepts.
func accepted(list []learnedPrefix, c bgp.Config, from bgp.Peer, h learnedPrefix) []learnedPrefix {
	policy, ok := c.Policy(bgp.Import, from.Import)
	h.External = from.External()
	if ok && accepts(policy, h.Route) && !slices.ContainsFunc(list, func(x learnedPrefix) bool { return x.Prefix == h.Prefix && x.from == h.from }) {
		list = append(list, h)
	}
	return list
}

// addresses tells which node has an address.
func addresses(plan Plan) map[netip.Addr]model.NodeName {
	out := map[netip.Addr]model.NodeName{}
	for n, c := range plan {
		for _, p := range c.Paths {
			out[p.NextHop] = n
		}
		for _, p := range c.Peers {
			if p.LocalAddress.IsValid() {
				out[p.LocalAddress] = n
			}
		}
	}
	return out
}

// agreed finds the other side of a session, and whether both would accept it.
func agreed(far bgp.Config, p bgp.Peer, mine func(netip.Addr) bool) (bgp.Peer, bool) {
	for _, back := range far.Peers {
		if mine(back.Address) && back.ASN == p.LocalASN && p.ASN == back.LocalASN && back.Password.Equal(p.Password) {
			return back, true
		}
	}
	return bgp.Peer{}, false
}

// refusing are the sessions with routers that are up now and that the router
// will not take up again: it expects the AS numbers and the password of now.
func refusing(before, after Plan, live Live) map[model.NodeName]map[netip.Addr]string {
	out := map[model.NodeName]map[netip.Addr]string{}
	for n, up := range live.Up {
		out[n] = map[netip.Addr]string{}
		for a := range up {
			p, had := before[n].Peer(a)
			q, has := after[n].Peer(a)
			switch {
			case !had || !has || !router(p):
			case p.ASN != q.ASN:
				out[n][a] = "it stays down: the peer says AS " + p.ASN.String()
			case p.LocalASN != q.LocalASN:
				out[n][a] = "it stays down until the peer expects AS " + q.LocalASN.String()
			case !p.Password.Equal(q.Password):
				out[n][a] = "it stays down until the peer has the same password"
			}
		}
	}
	return out
}

// closed are the sessions with other nodes that were agreed on by both sides and
// are not any more, although this side still has them configured.
func closed(before, after Plan) map[model.NodeName]map[netip.Addr]string {
	was, is := addresses(before), addresses(after)
	out := map[model.NodeName]map[netip.Addr]string{}
	for n, c := range after {
		out[n] = map[netip.Addr]string{}
		for _, p := range c.Peers {
			m, known := was[p.Address]
			old, had := before[n].Peer(p.Address)
			if !known || !had {
				continue
			}
			_, agreedThen := agreed(before[m], old, func(a netip.Addr) bool { return was[a] == n })
			_, agreedNow := agreed(after[m], p, func(a netip.Addr) bool { return is[a] == n || was[a] == n })
			if agreedThen && !agreedNow {
				out[n][p.Address] = "node " + string(m) + " does not take part any more"
			}
		}
	}
	return out
}
