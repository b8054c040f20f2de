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
	account string // the name of their service account
	labels  map[string]string
	pods    map[*pod]bool
	choices map[*choice]bool // that select it
}

// join puts a pod into the group of its labels, unless its namespace is not known.
func (w *world) join(p *pod) {
	if _, known := w.view.Namespaces[p.Namespace]; !known {
		if w.homeless[p.Namespace] == nil {
			w.homeless[p.Namespace] = map[*pod]bool{}
		}
		w.homeless[p.Namespace][p] = true
		return
	}
	key := groupKey(p.PolicyPod)
	g := w.groups[key]
	if g == nil {
		g = &group{key: key, account: p.ServiceAccount, labels: w.podLabels(p.PolicyPod), pods: map[*pod]bool{}, choices: map[*choice]bool{}}
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
	if delete(w.homeless[p.Namespace], p); len(w.homeless[p.Namespace]) == 0 {
		delete(w.homeless, p.Namespace)
	}
	g := p.group
	if g == nil {
		return
	}
	p.group = nil
	if delete(g.pods, p); len(g.pods) > 0 {
		return
	}
	if w.groups[g.key] == g {
		delete(w.groups, g.key)
	}
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
