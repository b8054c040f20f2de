// Package preview says what a change of the cluster's objects does to BGP before
// it is made: it runs the agents' own decision over the cluster as it is and as
// it would be, and compares.
//
// It is pure. Kernel and wire footprint: none.
package preview

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// Session is what becomes of one session, seen from one node.
type Session struct {
	Node   model.NodeName `json:"node"`
	Peer   string         `json:"peer"`
	Object string         `json:"object"`
	What   string         `json:"what"` // added, removed, reset, down, changed
	Why    string         `json:"why,omitempty"`
	Gains  []string       `json:"gains,omitempty"` // prefixes that the node newly sends to it
	Loses  []string       `json:"loses,omitempty"`
}

// Outcome is the difference.
type Outcome struct {
	Sessions []Session `json:"sessions"`
	Paths    []Path    `json:"paths"`
	Problems []string  `json:"problems,omitempty"`
}

// Plan is the configuration of every node.
type Plan map[model.NodeName]bgp.Config

// Plans decides for every node. Where ways has nothing for a node, rules of
// filters on interfaces match nothing.
func Plans(nodes []model.Node, of func(model.NodeName) model.Snapshot, nextHops map[model.NodeName]bgp.FIB) (Plan, []model.Problem) {
	out := Plan{}
	var problems []model.Problem
	for _, n := range nodes {
		c, p := bgp.DesiredOn(of(n.Name), n.Name, nextHops[n.Name])
		out[n.Name] = c
		problems = append(problems, p...)
	}
	return out, problems
}

// Side is the cluster before or after: every node's configuration, and the
// snapshot that its agent has.
type Side struct {
	Plan Plan
	Of   func(model.NodeName) model.Snapshot
}

// Live is what the agents say of the nodes as they are. Nodes that did not
// answer are missing; of them less is told.
type Live struct {
	Hosts map[model.NodeName]model.Host
	FIB   map[model.NodeName]bgp.FIB
	// Up has the peers whose session is established: they are known to take the
	// AS number and password that they are given now.
	Up map[model.NodeName]map[netip.Addr]bool
	// Pods counts the pods of a node in a prefix.
	Pods func(model.NodeName, netip.Prefix) int
}

// Compare gives what changes from one side to another.
func Compare(before, after Side, live Live) Outcome {
	var out Outcome
	dead, gone := refusing(before.Plan, after.Plan, live), closed(before.Plan, after.Plan)
	have, will := learn(before.Plan, nil), learn(after.Plan, dead)
	for _, n := range names(before.Plan, after.Plan) {
		was, is := side{before.Plan[n], have[n]}, side{after.Plan[n], will[n]}
		out.Sessions = append(out.Sessions, sessions(n, was, is, dead[n], gone[n])...)
	}
	out.Paths = paths(nextHops(before, have, live), nextHops(after, will, live), live)
	return out
}

func names(a, b Plan) []model.NodeName {
	var out []model.NodeName
	for n := range a {
		out = append(out, n)
	}
	for n := range b {
		out = append(out, n)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// side is a node before or after: its configuration, and what it has learned
// and may pass on.
type side struct {
	bgp.Config
	learnedPrefix []learnedPrefix
}

func sessions(n model.NodeName, was, is side, dead, gone map[netip.Addr]string) []Session {
	var out []Session
	a, b := was.Config, is.Config
	for _, p := range a.Peers {
		q, stays := b.Peer(p.Address)
		s := Session{Node: n, Peer: p.Address.String(), Object: p.Object.String(), Loses: model.Texts(was.sends(p))}
		if !stays {
			s.What = "removed"
			out = append(out, s)
			continue
		}
		had, has := was.sends(p), is.sends(q)
		s.Object, s.Loses, s.Gains = q.Object.String(), model.Texts(minus(had, has)), model.Texts(minus(has, had))
		switch why := resets(a, b, p, q); {
		case gone[q.Address] != "":
			s.What, s.Why, s.Loses, s.Gains = "down", gone[q.Address], model.Texts(had), nil
		case why != "" && dead[q.Address] != "":
			s.What, s.Why, s.Loses, s.Gains = "reset", why+"; "+dead[q.Address], model.Texts(had), nil
		case why != "":
			s.What, s.Why = "reset", why
		case len(s.Gains)+len(s.Loses) > 0 || !samePolicies(a, b, p, q):
			s.What, s.Why = "changed", "routes are sent again; the session stays up"
		case p.String() != q.String():
			s.What, s.Why = "changed", "the session stays up"
		default:
			continue
		}
		out = append(out, s)
	}
	for _, q := range b.Peers {
		if _, had := a.Peer(q.Address); !had {
			out = append(out, Session{Node: n, Peer: q.Address.String(), Object: q.Object.String(), What: "added", Gains: model.Texts(is.sends(q))})
		}
	}
	return out
}

// resets names what a session cannot change while it is up.
func resets(a, b bgp.Config, p, q bgp.Peer) string {
	if a.ASN != b.ASN || a.RouterID != b.RouterID || a.ListenPort != b.ListenPort || !slices.Equal(a.Listen, b.Listen) {
		return "the node's own AS number, router id or listening address changes"
	}
	for _, f := range []struct {
		name string
		same bool
	}{
		{"AS number", p.ASN == q.ASN}, {"local AS number", p.LocalASN == q.LocalASN}, {"port", p.Port == q.Port},
		{"source address", p.LocalAddress == q.LocalAddress}, {"password", p.Password.Equal(q.Password)},
		{"address families", slices.Equal(p.Families, q.Families)}, {"TTL security", p.TTLSecurity == q.TTLSecurity},
		{"restart time", p.RestartTime == q.RestartTime}, {"who connects", p.Passive == q.Passive},
		{"the count of own AS numbers", p.AllowedLocalASNs == q.AllowedLocalASNs},
		{"route reflection", p.InCluster && q.InCluster || p.ReflectorClient == q.ReflectorClient && p.ClusterID == q.ClusterID},
	} {
		if !f.same {
			return f.name + " changes"
		}
	}
	return ""
}

func samePolicies(a, b bgp.Config, p, q bgp.Peer) bool {
	for _, d := range []struct {
		dir  bgp.Direction
		x, y string
	}{{bgp.Import, p.Import, q.Import}, {bgp.Export, p.Export, q.Export}} {
		x, _ := a.Policy(d.dir, d.x)
		y, _ := b.Policy(d.dir, d.y)
		if !bgp.SamePolicies(x, y) {
			return false
		}
	}
	return true
}

// sends are the prefixes that a peer gets: the node's own and, outside its own
// AS, what it has heard from other nodes.
func (s side) sends(p bgp.Peer) []netip.Prefix {
	out := announced(s.Config, p)
	policy, ok := s.Policy(bgp.Export, p.Export)
	for _, h := range s.learnedPrefix {
		r := h.Route
		if !ok || !p.External() || p.InCluster || h.router || !slices.Contains(p.Families, model.FamilyOf(r.Prefix.Addr())) {
			continue
		}
		if action, _ := policy.Decide(r); action == bgp.Accept {
			out = append(out, r.Prefix)
		}
	}
	return out
}

// announced are the node's own prefixes that pass to a peer.
func announced(c bgp.Config, p bgp.Peer) []netip.Prefix {
	policy, ok := c.Policy(bgp.Export, p.Export)
	var out []netip.Prefix
	for _, path := range c.Paths {
		if !ok || !slices.Contains(p.Families, model.FamilyOf(path.Prefix.Addr())) {
			continue
		}
		if action, _ := policy.Decide(bgp.Route{Prefix: path.Prefix, NextHop: path.NextHop, Local: true, LocalPref: path.LocalPref}); action == bgp.Accept {
			out = append(out, path.Prefix)
		}
	}
	return out
}

func minus(a, b []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return slices.Contains(b, p) })
}

// Text is the outcome for people.
func (o Outcome) Text() string {
	var b strings.Builder
	resets := 0
	for _, s := range o.Sessions {
		if s.What != "added" && s.What != "changed" {
			resets++
		}
		fmt.Fprintf(&b, "%-8s node %s, peer %s (%s)", s.What, s.Node, s.Peer, s.Object)
		if s.Why != "" {
			fmt.Fprintf(&b, ": %s", s.Why)
		}
		for _, p := range s.Gains {
			fmt.Fprintf(&b, "\n           + %s", p)
		}
		for _, p := range s.Loses {
			fmt.Fprintf(&b, "\n           - %s", p)
		}
		b.WriteString("\n")
	}
	for _, p := range o.Paths {
		fmt.Fprintf(&b, "%-8s node %s to block %s of node %s%s: %s\n", p.What, p.Node, p.Block, p.Owner, p.pods(), p.nextHop())
	}
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "problem  %s\n", p)
	}
	fmt.Fprintf(&b, "%d session(s) go down, %d change, %d way(s) between nodes change.\n", resets, len(o.Sessions)-resets, len(o.Paths))
	return b.String()
}
