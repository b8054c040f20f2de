package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

// announced looks at the owner's sessions: the prefix has to leave by one of
// them. When the asker has learned it all the same, a session that is down is
// reported and does not end the story.
func (t *builder) announced() bool {
	prefix := t.prefix()
	if t.local() || t.From != nil && t.From.Others > 0 && !t.hasLearned(prefix) {
		return true // or the asker computes its routes
	}
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
		if !p.Up() {
			if !arrived && matters(t.Owner, t.FromNode, p) {
				return t.down(t.Owner, t.From, p, t.Reach[p.Address])
			}
			continue
		}
		if rule, rejected := rejects(t.Owner.BGP, peer.Export, prefix, true); rejected {
			if !arrived && matters(t.Owner, t.FromNode, p) {
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

func (t *builder) hasLearned(prefix netip.Prefix) bool {
	for _, l := range t.From.Learned {
		if l.Prefix == prefix {
			return true
		}
	}
	return false
}

// matters picks the sessions that can carry a prefix between a node and another
// one: the one with the other itself, or where there is none, all.
func matters(v *nodeview.View, other model.NodeName, p model.PeerStatus) bool {
	direct := func(p model.PeerStatus) bool { return p.Object == (model.Ref{Kind: "Node", Name: string(other)}) }
	return direct(p) || !slices.ContainsFunc(v.Peers, direct)
}

// Fault is what is wrong with a session, and what to change.
type Fault struct {
	Class       Class
	Object, Fix string
	Text        string
}

// down ends the story with a session of a node that is not established.
func (t *builder) down(v, far *nodeview.View, p model.PeerStatus, answer Answer) bool {
	f := Session(v, far, p, answer)
	return t.broken("session", f.Class, f.Object, f.Fix, "%s", f.Text)
}

// Session tells the reasons apart why a session of a node is not established.
// far is the node at the other end, nil when that is a router or does not
// answer; answer is what the peer says to the node.
func Session(v, far *nodeview.View, p model.PeerStatus, answer Answer) Fault {
	peer, _ := v.BGP.Peer(p.Address)
	object, why := p.Object.String(), strings.ToLower(p.LastError)
	f := Fault{Class: PeerDown, Object: object, Text: fmt.Sprintf("the session of node %s with %s is %s", v.Node, p.Address, p.State)}
	if p.LastError != "" {
		f.Text += " (" + p.LastError + ")"
	}
	if back, ok := OtherSide(peer, far); ok && (back.ASN != peer.LocalASN || back.LocalASN != peer.ASN) {
		f.Class, f.Object = WrongAS, fmt.Sprintf("%s or %s: spec.asNumber", object, back.Object)
		f.Fix = fmt.Sprintf("node %s says AS %s and expects %s; node %s says AS %s and expects %s: make them agree", v.Node, peer.LocalASN, peer.ASN, far.Node, back.LocalASN, back.ASN)
		return f
	} else if ok && !back.Password.Equal(peer.Password) {
		f.Class, f.Object, f.Fix = WrongPassword, fmt.Sprintf("%s or %s: spec.password", object, back.Object), "one side has a password and the other has none: make them agree"
		return f
	}
	switch {
	case strings.Contains(why, "refused this node's open"):
		f.Class, f.Object = WrongAS, object+": spec.asNumber"
		f.Fix = fmt.Sprintf("the peer has to expect AS %s of the node (spec.localASNumber says another), and to take one of its address families (muslin.io/families); its log has the reason", peer.LocalASN)
	case slices.ContainsFunc(wordsOfAS, func(w string) bool { return strings.Contains(why, w) }):
		f.Class, f.Object, f.Fix = WrongAS, object+": spec.asNumber", fmt.Sprintf("%s is configured as AS %s here; set the number that the peer has", p.Address, p.ASN)
	case answer.Refused:
		f.Class, f.Object, f.Fix = WrongAS, object+": spec.asNumber", fmt.Sprintf("the peer speaks BGP and what it says of itself is refused: it is configured as AS %s here; set the number that the peer has", p.ASN)
	case strings.Contains(why, "auth"):
		f.Class, f.Object, f.Fix = WrongPassword, object+": spec.password", "set the password that the peer has"
	// A wrong password is never answered: the peer's kernel drops what carries it
	// (RFC 2385 section 2).
	case answer.Echo && !peer.Password.IsZero() && !strings.Contains(why, "refused"):
		f.Class, f.Object, f.Fix = WrongPassword, object+": spec.password", "the peer answers an echo and ignores the session: set the password that it has"
	case answer.Echo:
		f.Fix = "the peer answers an echo, but not BGP: is its BGP daemon running, does it know this node, does it want a password?"
	default:
		f.Fix = "the peer does not answer an echo either: is it up, is the address right, is there a route to it?"
	}
	return f
}

// wordsOfAS are those of the errors that follow an AS number which the other
// side does not expect (RFC 4271 section 6.2, "Bad Peer AS", in several words).
var wordsOfAS = []string{"bad peer as", "peer as", "as number", "as-number", "invalid-msg"}

// OtherSide is the far node's half of a session. Passwords are redacted: only
// whether there is one can be compared.
func OtherSide(peer bgp.Peer, far *nodeview.View) (bgp.Peer, bool) {
	if far == nil {
		return bgp.Peer{}, false
	}
	for _, back := range far.BGP.Peers {
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

// rejects runs a prefix through a policy and names the rule that rejects it. Of
// what was not learned nothing but the prefix is known, and what might be decided
// otherwise by a community, say, is not held against a rule.
func rejects(c bgp.Config, policy string, prefix netip.Prefix, export bool) (rule string, rejected bool) {
	direction, route := bgp.Import, bgp.Route{Prefix: prefix, Partial: true}
	if export {
		direction, route.Local = bgp.Export, true
		for _, p := range c.Paths {
			if p.Prefix == prefix {
				route = bgp.Route{Prefix: prefix, NextHop: p.NextHop, Local: true, LocalPref: p.LocalPref}
			}
		}
	}
	p, ok := c.Policy(direction, policy)
	if !ok {
		return "", false
	}
	action, from := p.Decide(route)
	return from, action == bgp.Reject
}

// filterObject turns "filter f exportV4[0]" into the object and field.
func filterObject(rule string) string {
	if name, field, ok := strings.Cut(strings.TrimPrefix(rule, "filter "), " "); ok && strings.HasPrefix(rule, "filter ") {
		return "BGPFilter " + name + ": spec." + field
	}
	return "rule " + rule
}
