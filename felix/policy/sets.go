package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// hash makes the part of an id behind its prefix.
func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:10])
}

// choice is what a selector selects.
type choice struct {
	text   string
	groups []*group
	nets   bool // a network set is among them
	sel    model.Selector
}

// choose evaluates a selector once for each group that can match.
func (c *casefile) choose(s model.Selector) *choice {
	if have := c.asked[s]; have != nil {
		return have
	}
	text := s.String()
	out := c.texts[text]
	if out == nil {
		out = &choice{text: text, sel: s}
		for _, g := range c.candidates(s) {
			if s.Matches(g.labels) {
				out.groups = append(out.groups, g)
			}
		}
		out.nets = slices.ContainsFunc(c.netsets, func(n netset) bool { return s.Matches(n.labels) })
		c.texts[text] = out
	}
	c.asked[s] = out
	return out
}

// candidates gives the groups that s may select: those of its namespace, if it
// asks for one.
func (c *casefile) candidates(s model.Selector) []*group {
	if ns, ok := namespaceOf(s); ok {
		return c.byName[ns]
	}
	return c.groups
}

// namespaceOf gives the namespace that everything s selects is in, if it asks for
// one.
func namespaceOf(s model.Selector) (string, bool) {
	if e, ok := s.(except); ok {
		s = e.of
	}
	if r, ok := s.(interface{ Requires(string) (string, bool) }); ok {
		return r.Requires(model.LabelNamespace)
	}
	return "", false
}

// selected gives the sets that hold what a selector selects: the addresses of
// pods, and the ranges of network sets if it selects any.
func (c *casefile) selected(s model.Selector) []SetID {
	chosen := c.choose(s)
	out := []SetID{c.addressSet(chosen)}
	if chosen.nets {
		out = append(out, c.netSet(chosen))
	}
	return out
}

func (c *casefile) addressSet(of *choice) SetID {
	id := SetID("a-" + hash(of.text))
	if _, have := c.out.Sets[id]; have {
		return id
	}
	set := Set{ID: id, Kind: Addresses, Name: of.text}
	for _, g := range of.groups {
		for _, p := range g.pods {
			set.Addresses = append(set.Addresses, p.addrs...)
		}
	}
	slices.SortFunc(set.Addresses, netip.Addr.Compare)
	c.out.Sets[id] = set
	return id
}

func (c *casefile) netSet(of *choice) SetID {
	id := SetID("n-" + hash("selector "+of.text))
	if _, have := c.out.Sets[id]; have {
		return id
	}
	set := Set{ID: id, Kind: Nets, Name: of.text}
	for _, n := range c.netsets {
		if of.sel.Matches(n.labels) {
			set.Nets = append(set.Nets, n.ranges...)
		}
	}
	set.Nets = merge(set.Nets)
	c.out.Sets[id] = set
	return id
}

// rangeSet gives a set of fixed ranges; it is named after them.
func (c *casefile) rangeSet(ranges []Range) SetID {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
	}
	text := strings.Join(texts, " ")
	id := SetID("n-" + hash("nets "+text))
	if len(text) > longestName {
		text = fmt.Sprintf("%s and %d more", texts[0], len(texts)-1)
	}
	c.out.Sets[id] = Set{ID: id, Kind: Nets, Name: text, Nets: ranges}
	return id
}

// longestName is how long a set's name gets, in bytes, where it is made of what
// the set holds.
const longestName = 100

// portSet gives the set of those ports that pods declare under one of names:
// pods that s selects, pods of this node if s is nil and the side is that of the
// endpoint itself, else any. Protocol 0: any.
func (c *casefile) portSet(s model.Selector, own bool, protocol uint8, names []string) SetID {
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	whose := "any pod"
	switch {
	case s != nil:
		whose = s.String()
	case own:
		whose = "pods of this node"
	}
	text := fmt.Sprintf("port %s of %s", strings.Join(names, ","), whose)
	if protocol != 0 {
		text = protocolName(protocol) + " " + text
	}
	id := SetID("p-" + hash(text))
	if _, have := c.out.Sets[id]; have {
		return id
	}
	set := Set{ID: id, Kind: Ports, Name: text}
	groups := c.groups
	if s != nil {
		groups = c.choose(s).groups
	}
	for _, g := range groups {
		for _, p := range g.pods {
			if s != nil || !own || p.local {
				set.Ports = append(set.Ports, p.named(protocol, names)...)
			}
		}
	}
	slices.SortFunc(set.Ports, AddrPort.Compare)
	set.Ports = slices.Compact(set.Ports)
	c.out.Sets[id] = set
	return id
}

func (p *pod) named(protocol uint8, names []string) []AddrPort {
	var out []AddrPort
	for _, port := range p.Ports {
		if (protocol == 0 || port.Protocol == protocol) && slices.Contains(names, port.Name) {
			for _, a := range p.addrs {
				out = append(out, AddrPort{a, port.Protocol, port.Port})
			}
		}
	}
	return out
}
