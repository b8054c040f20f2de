package explain

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/model"
)

// announced looks at the owner's sessions: the prefix has to leave by one of
// them. When the asker has learned it all the same, a session that is down is
// told and does not end the story.
func (t *teller) announced() bool {
	if t.local() {
		return true
	}
	prefix := t.prefix()
	if !announces(t.Owner.BGP, prefix) {
		return t.broken("announce", NotExported, "node "+string(t.Pod.Node), "see muslinctl node show "+string(t.Pod.Node)+" bgp", "node %s does not announce %s", t.Pod.Node, prefix)
	}
	arrived := t.From != nil && t.hasLearned(prefix)
	var to []string
	for _, p := range t.Owner.Peers {
		peer, known := t.Owner.BGP.Peer(p.Address)
		if !known {
			continue
		}
		if p.State != "Established" {
			if !arrived && t.matters(p) {
				return t.down(p, peer)
			}
			continue
		}
		if rule, rejected := rejects(t.Owner.BGP, peer.Export, prefix, true); rejected {
			if !arrived && t.matters(p) {
				return t.broken("announce", FilterRejects, filterObject(rule), "accept the prefix in the rule, or take the filter off "+p.Object.String(),
					"node %s does not announce %s to %s: %s", t.Pod.Node, prefix, p.Address, rule)
			}
			continue
		}
		to = append(to, p.Address.String())
	}
	if len(to) == 0 && !arrived {
		return t.broken("announce", PeerDown, "the BGPPeers of node "+string(t.Pod.Node), "see muslinctl node status "+string(t.Pod.Node), "node %s announces %s to nobody", t.Pod.Node, prefix)
	}
	t.ok("announce", "node %s announces %s to %s", t.Pod.Node, prefix, strings.Join(to, ", "))
	return true
}

func (t *teller) hasLearned(prefix netip.Prefix) bool {
	for _, l := range t.From.Learned {
		if l.Prefix == prefix {
			return true
		}
	}
	return false
}

// matters picks the sessions that can bring the prefix to the asker: the one
// with the asker itself, or where there is none, those with routers.
func (t *teller) matters(p model.PeerStatus) bool {
	direct := func(p model.PeerStatus) bool { return p.Object == (model.Ref{Kind: "Node", Name: string(t.FromNode)}) }
	for _, q := range t.Owner.Peers {
		if direct(q) {
			return direct(p)
		}
	}
	return true
}

// down tells the reasons apart why a session is not established.
func (t *teller) down(p model.PeerStatus, peer bgp.Peer) bool {
	object, why := p.Object.String(), strings.ToLower(p.LastError)
	said := fmt.Sprintf("the session of node %s with %s is %s", t.Pod.Node, p.Address, p.State)
	if p.LastError != "" {
		said += " (" + p.LastError + ")"
	}
	if back, ok := t.otherSide(peer); ok && (back.ASN != peer.LocalASN || back.LocalASN != peer.ASN) {
		return t.broken("session", WrongAS, fmt.Sprintf("%s or %s: spec.asNumber", object, back.Object), fmt.Sprintf("node %s says AS %s and expects %s; node %s says AS %s and expects %s: make them agree",
			t.Pod.Node, peer.LocalASN, peer.ASN, t.FromNode, back.LocalASN, back.ASN), "%s", said)
	} else if ok && !back.Password.Equal(peer.Password) {
		return t.broken("session", WrongPassword, fmt.Sprintf("%s or %s: spec.password", object, back.Object), "one side has a password and the other has none: make them agree", "%s", said)
	}
	switch {
	case strings.Contains(why, "bad peer as"), strings.Contains(why, "peer as"), strings.Contains(why, "as number"), strings.Contains(why, "as-number"), strings.Contains(why, "invalid-msg"):
		return t.broken("session", WrongAS, object+": spec.asNumber", fmt.Sprintf("%s is configured as AS %s here; set the number that the peer has", p.Address, p.ASN), "%s", said)
	case strings.Contains(why, "auth"):
		return t.broken("session", WrongPassword, object+": spec.password", "set the password that the peer has", "%s", said)
	case t.Reach[p.Address] && !peer.Password.IsZero():
		return t.broken("session", WrongPassword, object+": spec.password", "the peer answers an echo and ignores the session: set the password that it has", "%s", said)
	case t.Reach[p.Address]:
		return t.broken("session", PeerDown, object, "the peer answers an echo, but not BGP: is its BGP daemon running, does it know this node, does it want a password?", "%s", said)
	}
	return t.broken("session", PeerDown, object, "the peer does not answer an echo either: is it up, is the address right, is there a route to it?", "%s", said)
}

// otherSide is the asker's half of a session with the owner, when the peer is
// the asker. Passwords are redacted: only whether there is one can be compared.
func (t *teller) otherSide(peer bgp.Peer) (bgp.Peer, bool) {
	if t.From == nil {
		return bgp.Peer{}, false
	}
	for _, back := range t.From.BGP.Peers {
		if back.LocalAddress == peer.Address && back.Address == peer.LocalAddress {
			return back, true
		}
	}
	return bgp.Peer{}, false
}

func announces(c bgp.Config, prefix netip.Prefix) bool {
	for _, p := range c.Paths {
		if p.Prefix == prefix {
			return true
		}
	}
	return false
}

// rejects runs a prefix through a policy and names the rule that rejects it.
// Rules that look at what is not known here, such as communities, are passed
// over.
func rejects(c bgp.Config, policy string, prefix netip.Prefix, export bool) (rule string, rejected bool) {
	for _, p := range c.Policies {
		if p.Name != policy || (p.Direction == bgp.Export) != export {
			continue
		}
		for _, r := range p.Rules {
			if r.Action == bgp.Continue || !applies(r.Match, prefix, export) {
				continue
			}
			return r.From, r.Action == bgp.Reject
		}
	}
	return "", false
}

func applies(m bgp.Match, prefix netip.Prefix, local bool) bool {
	switch {
	case m.Family != 0 && m.Family != bgp.FamilyOf(prefix.Addr()):
		return false
	case m.Source == bgp.SourceLocal && !local, m.Source == bgp.SourcePeers && local:
		return false
	case len(m.NextHops) > 0, m.Community != "", len(m.ASPathPrefix) > 0, m.LocalPref != nil:
		return false
	case len(m.Prefixes) == 0:
		return true
	}
	in := false
	for _, r := range m.Prefixes {
		in = in || r.Prefix.Contains(prefix.Addr()) && prefix.Bits() >= r.Min && prefix.Bits() <= r.Max
	}
	return in != m.NotPrefixes
}

// filterObject turns "filter f exportV4[0]" into the object and field.
func filterObject(rule string) string {
	if name, field, ok := strings.Cut(strings.TrimPrefix(rule, "filter "), " "); ok && strings.HasPrefix(rule, "filter ") {
		return "BGPFilter " + name + ": spec." + field
	}
	return "rule " + rule
}
