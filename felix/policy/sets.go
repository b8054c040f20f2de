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
	text      string
	sel       model.Selector
	namespace string // that everything it selects is in; empty: no one
	groups    map[*group]bool
	held      []*held // sets of addresses and ports of the pods it selects
	netsets   map[*netset]bool
}

// choose evaluates a selector once for each group that can match.
func (w *world) choose(s model.Selector) *choice {
	if have := w.requested[s]; have != nil {
		return have
	}
	text := s.String()
	out := w.choices[text]
	if out == nil {
		out = &choice{text: text, sel: s, groups: map[*group]bool{}, netsets: map[*netset]bool{}}
		out.namespace = namespaceOf(s)
		if out.namespace != "" {
			for g := range w.byNamespace[out.namespace] {
				out.consider(g)
			}
		} else {
			for _, g := range w.groups {
				out.consider(g)
			}
		}
		for _, n := range w.netsets {
			if s.Matches(n.labels) {
				out.netsets[n] = true
			}
		}
		w.choices[text] = out
	}
	w.requested[s] = out
	return out
}

// consider adds a group if it is selected.
func (c *choice) consider(g *group) {
	if (c.namespace == "" || c.namespace == g.labels[model.LabelNamespace]) && c.sel.Matches(g.labels) {
		if g.choices == nil {
			g.choices = map[*choice]bool{}
		}
		c.groups[g], g.choices[c] = true, true
	}
}

// forgetChoices forgets selectors that no rule has any more.
func (w *world) forgetChoices() {
	if len(w.choices) <= len(w.requested) {
		return // several selectors may read alike, so this is not exact, and need not be
	}
	used := map[*choice]bool{}
	for _, c := range w.requested {
		used[c] = true
	}
	for text, c := range w.choices {
		if used[c] {
			continue
		}
		delete(w.choices, text)
		for g := range c.groups {
			delete(g.choices, c)
		}
	}
}

// namespaceOf gives the namespace that everything s selects is in; empty: it asks for
// none.
func namespaceOf(s model.Selector) string {
	if e, ok := s.(except); ok {
		s = e.of
	}
	if r, ok := s.(interface{ Requires(string) (string, bool) }); ok {
		namespace, _ := r.Requires(model.LabelNamespace)
		return namespace
	}
	return ""
}

// source says what the members of a set are.
type source struct {
	kind     SetKind
	name     string
	of       *choice // nil: any pod, or what follows
	own      bool    // pods of this node
	protocol uint8   // of Ports; 0: any
	names    []string
	nets     []Range
	service  []model.ServiceEndpoint // fixed: no pod adds to it
}

// has reports whether addresses of a pod, or its ports, are members.
func (s *source) has(p *pod) bool {
	switch {
	case p.group == nil || s.kind == Nets || s.service != nil:
		return false
	case s.of != nil:
		return s.of.groups[p.group]
	}
	return !s.own || len(p.ends) > 0
}

// selected gives the sets that hold what a selector selects: the addresses of
// pods, and the ranges of network sets if it selects any.
func (w *world) selected(s model.Selector) []SetID {
	c := w.choose(s)
	out := []SetID{SetID("a-" + hash(c.text))}
	w.sources[out[0]] = &source{kind: Addresses, name: c.text, of: c}
	if len(c.netsets) > 0 {
		id, src := c.netsSource()
		out, w.sources[id] = append(out, id), src
	}
	return out
}

// netsSource says what the ranges of the network sets are that a selector selects.
func (c *choice) netsSource() (SetID, *source) {
	var nets []Range
	for n := range c.netsets {
		nets = append(nets, n.ranges...)
	}
	return SetID("n-" + hash("selector "+c.text)), &source{kind: Nets, name: c.text, nets: merge(nets)}
}

// rangeSet gives a set of fixed ranges; it is named after them.
func (w *world) rangeSet(ranges []Range) SetID {
	texts := make([]string, len(ranges))
	for i, r := range ranges {
		texts[i] = r.String()
	}
	text := strings.Join(texts, " ")
	id := SetID("n-" + hash("nets "+text))
	if len(text) > longestName {
		text = fmt.Sprintf("%s and %d more", texts[0], len(texts)-1)
	}
	w.sources[id] = &source{kind: Nets, name: text, nets: ranges}
	return id
}

// longestName is how long a set's name gets, in bytes, where it is made of what
// the set holds.
const longestName = 100

// portSet gives the set of those ports that pods declare under one of names:
// pods that s selects, pods of this node if s is nil and the side is that of the
// endpoint itself, else any. Protocol 0: any.
func (w *world) portSet(s model.Selector, own bool, protocol uint8, names []string) SetID {
	names = slices.Clone(names)
	slices.Sort(names)
	src := &source{kind: Ports, protocol: protocol, names: slices.Compact(names)}
	whose := "any pod"
	switch {
	case s != nil:
		src.of, whose = w.choose(s), s.String()
	case own:
		src.own, whose = true, "pods of this node"
	}
	src.name = fmt.Sprintf("port %s of %s", strings.Join(src.names, ","), whose)
	if protocol != 0 {
		src.name = protocolName(protocol) + " " + src.name
	}
	id := SetID("p-" + hash(src.name))
	w.sources[id] = src
	return id
}

// serviceSet gives the set of what serves a service: addresses and ports, or
// addresses alone.
func (w *world) serviceSet(name string, ports bool) SetID {
	id, src := w.serviceSource(name, ports)
	w.sources[id] = src
	return id
}

func (w *world) serviceSource(name string, ports bool) (SetID, *source) {
	src := &source{kind: Addresses, name: "service " + name, service: []model.ServiceEndpoint{}}
	id := SetID("a-" + hash(src.name))
	if ports {
		src.kind, id = Ports, SetID("p-"+hash(src.name))
	}
	src.service = append(src.service, w.view.Services[name]...)
	return id, src
}

// named gives the ports that an address of a pod adds to a set.
func (s *source) named(p *pod, a netip.Addr) []AddrPort {
	var out []AddrPort
	for _, port := range p.Ports {
		if (s.protocol == 0 || port.Protocol == s.protocol) && slices.Contains(s.names, port.Name) {
			out = append(out, AddrPort{a, port.Protocol, port.Port})
		}
	}
	return out
}
