package policy

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// renew takes over another revision of all but pods, at the cost of what is another in it: pods of a
// namespace or service account with other labels look for their groups anew, network sets and
// services change the sets that have them. Rules are made anew where they may read otherwise.
func (w *world) renew(in Input) {
	before, now := w.view, in.View
	if !sameKnown(w.known, in.Known) || !reflect.DeepEqual(before.Nodes, now.Nodes) {
		w.known = in.Known
		w.forget()
	}
	if (before.Of == nil) != (now.Of == nil) || !maps.Equal(before.Of, now.Of) {
		w.restless = true
	}
	w.take(now)
	spaces := others(before.Namespaces, now.Namespaces, sameLabels)
	w.relabel(spaces, others(before.ServiceAccounts, now.ServiceAccounts, sameLabels))
	w.readNetworkSets(spaces)
	for name := range others(before.Services, now.Services, slices.Equal) {
		for _, ports := range []bool{true, false} {
			w.replace(w.serviceSource(name, ports))
		}
	}
	if w.unsure {
		w.unsure = false
		w.forget()
	}
	if !reflect.DeepEqual(hostEndpointsOf(w.self, before.HostEndpoints), hostEndpointsOf(w.self, now.HostEndpoints)) {
		w.hosts = map[string]*group{}
	}
}

// same reports whether two maps are one.
func same[V any](a, b map[string]V) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer()
}

// others gives the keys whose values differ, or that only one of the two has. What is the same in memory
// is not looked at.
func others[V any](a, b map[string]V, equal func(V, V) bool) map[string]bool {
	out := map[string]bool{}
	if same(a, b) {
		return out
	}
	for k, is := range b {
		if was, had := a[k]; !had || !equal(was, is) {
			out[k] = true
		}
	}
	for k := range a {
		if _, has := b[k]; !has {
			out[k] = true
		}
	}
	return out
}

// relabel ends the groups that inherit other labels now; update has their pods join others.
func (w *world) relabel(spaces, accounts map[string]bool) {
	for ns := range spaces {
		for g := range w.byNamespace[ns] {
			w.retire(g)
		}
		for p := range w.homeless[ns] {
			w.moved[p] = true
		}
	}
	for account := range accounts {
		ns, name, _ := strings.Cut(account, "/")
		for g := range w.byNamespace[ns] {
			if g.account == name {
				w.retire(g)
			}
		}
	}
}

// retire has no pod join a group any more, and those that are in it leave.
func (w *world) retire(g *group) {
	if w.groups[g.key] == g {
		delete(w.groups, g.key)
	}
	w.lastGroup = nil
	for _, p := range g.pods {
		w.moved[p] = true
	}
}

// netset is a network set, or the addresses of a host endpoint, with the labels it is selected by.
type netset struct {
	given    model.NetworkSet // without those of a host endpoint, which are
	of       model.HostEndpoint
	labels   map[string]string
	ranges   []Range
	revision int // that had it last
}

// same reports whether it would be made of the same again.
func (n *netset) same(given model.NetworkSet, of model.HostEndpoint) bool {
	return n != nil && sameLabels(n.given.Labels, given.Labels) && slices.Equal(n.given.Nets, given.Nets) &&
		sameLabels(n.of.Labels, of.Labels) && slices.Equal(n.of.Addresses, of.Addresses)
}

// readNetworkSets takes over the view's network sets and host endpoints. spaces are namespaces with other
// labels than before. A set whose namespace is not known yet is of no use to selectors of namespaces, and is left out.
func (w *world) readNetworkSets(spaces map[string]bool) {
	w.netsetsRead++
	dirty := map[*choice]bool{}
	for _, s := range w.view.NetworkSets {
		ns := s.Object.Namespace
		if w.keepsNetset(s.Object, s, model.HostEndpoint{}) && !spaces[ns] {
			continue
		}
		labels := map[string]string{}
		if ns != "" {
			if _, known := w.view.Namespaces[ns]; !known {
				w.putNetset(s.Object, nil, dirty)
				continue
			}
			inherit(labels, ns, w.view.Namespaces[ns])
			labels[model.LabelNamespace] = ns
		}
		addOwn(labels, s.Labels)
		w.putNetset(s.Object, &netset{given: s, labels: labels, ranges: mergePrefixes(s.Nets)}, dirty)
	}
	for _, e := range w.view.HostEndpoints {
		if w.keepsNetset(e.Object, model.NetworkSet{}, e) {
			continue
		}
		labels := map[string]string{}
		addOwn(labels, e.Labels)
		var ranges []Range
		for _, a := range e.Addresses {
			ranges = append(ranges, Range{a, a})
		}
		w.putNetset(e.Object, &netset{of: e, labels: labels, ranges: merge(ranges)}, dirty)
	}
	for ref, n := range w.netsets {
		if n.revision != w.netsetsRead {
			w.putNetset(ref, nil, dirty)
		}
	}
	for c := range dirty {
		w.replace(c.netsSource())
	}
}

// keepsNetset reports whether a network set is as it was, and notes that it is still there.
func (w *world) keepsNetset(ref model.Ref, given model.NetworkSet, of model.HostEndpoint) bool {
	before := w.netsets[ref]
	if !before.same(given, of) {
		return false
	}
	before.revision = w.netsetsRead
	return true
}

// putNetset has another network set in the place of one; nil: none. Rules name the ranges of a
// selector's network sets only if it has any: if it has the first now, or no longer one, they are
// made anew. dirty gets the selectors whose ranges are others.
func (w *world) putNetset(ref model.Ref, now *netset, dirty map[*choice]bool) {
	was := w.netsets[ref]
	if was == nil && now == nil {
		return
	}
	if delete(w.netsets, ref); now != nil {
		now.revision = w.netsetsRead
		w.netsets[ref] = now
	}
	for _, c := range w.choices {
		had := len(c.netsets) > 0
		if was != nil && c.netsets[was] {
			delete(c.netsets, was)
			dirty[c] = true
		}
		if now != nil && c.sel.Matches(now.labels) {
			c.netsets[now] = true
			dirty[c] = true
		}
		if had != (len(c.netsets) > 0) {
			w.unsure = true
		}
	}
}

// replace has a set made of other fixed members, if there is such a set.
func (w *world) replace(id SetID, s *source) {
	if w.sources[id] != nil {
		w.sources[id] = s
	}
	if h := w.held[id]; h != nil {
		h.source = s
		w.replaced[h] = true
	}
}
