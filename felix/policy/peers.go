package policy

import (
	"maps"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// group is pods that have the same labels: no selector tells them apart.
type group struct {
	key     string
	labels  map[string]string
	pods    map[*pod]bool
	choices map[*choice]bool // that select it
}

// netset is a network set with the labels it is selected by.
type netset struct {
	labels map[string]string
	ranges []Range
}

// join puts a pod into the group of its labels, unless its namespace is not known.
func (w *world) join(p *pod) {
	if _, known := w.view.Namespaces[p.Namespace]; !known {
		return
	}
	key := groupKey(p.PolicyPod)
	g := w.groups[key]
	if g == nil {
		g = &group{key: key, labels: w.podLabels(p.PolicyPod), pods: map[*pod]bool{}, choices: map[*choice]bool{}}
		w.groups[key] = g
		ns := w.byNamespace[p.Namespace]
		if ns == nil {
			ns = map[*group]bool{}
			w.byNamespace[p.Namespace] = ns
		}
		ns[g] = true
		for _, c := range w.choices {
			c.consider(g)
		}
	}
	p.group = g
	g.pods[p] = true
}

// leave takes a pod out of its group; the last one ends the group.
func (w *world) leave(p *pod) {
	g := p.group
	if g == nil {
		return
	}
	p.group = nil
	if delete(g.pods, p); len(g.pods) > 0 {
		return
	}
	delete(w.groups, g.key)
	delete(w.byNamespace[p.Namespace], g)
	delete(w.subjects, g)
	for c := range g.choices {
		delete(c.groups, g)
	}
}

func groupKey(p *model.PolicyPod) string {
	var b strings.Builder
	b.WriteString(p.Namespace + "\x00" + p.ServiceAccount)
	for _, k := range slices.Sorted(maps.Keys(p.Labels)) {
		b.WriteString("\x00" + k + "\x00" + p.Labels[k])
	}
	return b.String()
}

// longestAccount is how long the name of a service account may be to be a label.
const longestAccount = 62

// podLabels gives what selectors see of a pod.
func (w *world) podLabels(p *model.PolicyPod) map[string]string {
	return Labels(p, w.view.Namespaces[p.Namespace], w.view.ServiceAccounts[p.Namespace+"/"+p.ServiceAccount])
}

// addOwn adds the labels that an object has itself, but for those that say what it
// is, where, and what it inherits: who may write the object must not choose
// whose namespace it counts as, and which policies it escapes.
func addOwn(out, labels map[string]string) {
	for k, v := range labels {
		given := k == model.LabelNamespace || k == model.LabelOrchestrator || k == model.LabelServiceAccount ||
			strings.HasPrefix(k, model.LabelPrefixOfNamespace) || strings.HasPrefix(k, model.LabelPrefixOfAccount)
		if !given {
			out[k] = v
		}
	}
}

func inherit(out map[string]string, name string, namespace map[string]string) {
	for k, v := range namespace {
		out[model.LabelPrefixOfNamespace+k] = v
	}
	out[model.LabelPrefixOfNamespace+model.LabelOwnName] = name
}

// addressesOf gives the addresses of the nodes that s selects.
func (w *world) addressesOf(s model.Selector) []Range {
	var out []Range
	for _, n := range w.view.Nodes {
		if s.Matches(n.Labels) {
			for _, a := range n.Addresses {
				bare := a.Unmap().WithZone("")
				out = append(out, Range{bare, bare})
			}
		}
	}
	return merge(out)
}

// findNetworkSets gives each set its labels; the addresses of a host endpoint are one. One with a namespace that is not
// known yet is of no use to selectors of namespaces, and is left out.
func (w *world) findNetworkSets() {
	for _, s := range w.view.NetworkSets {
		labels := map[string]string{}
		if ns := s.Object.Namespace; ns != "" {
			if _, known := w.view.Namespaces[ns]; !known {
				continue
			}
			inherit(labels, ns, w.view.Namespaces[ns])
			labels[model.LabelNamespace] = ns
		}
		addOwn(labels, s.Labels)
		w.netsets = append(w.netsets, netset{labels, mergePrefixes(s.Nets)})
	}
	for _, e := range w.view.HostEndpoints {
		labels := map[string]string{}
		addOwn(labels, e.Labels)
		var ranges []Range
		for _, a := range e.Addresses {
			ranges = append(ranges, Range{a, a})
		}
		w.netsets = append(w.netsets, netset{labels, merge(ranges)})
	}
}
