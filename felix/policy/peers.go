package policy

import (
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// group is pods that have the same labels: no selector tells them apart.
type group struct {
	key     string
	account string // the name of their service account
	labels  map[string]string
	pods    []*pod
	choices map[*choice]bool // that select it
}

// join puts a pod into the group of what it is now, unless it, or its namespace, is not known.
func (w *world) join(p *pod, is *model.PolicyPod, known bool) {
	var g *group
	if _, there := w.view.Namespaces[is.Namespace]; known && there {
		g = w.groupOf(is)
	}
	if g != p.group || g == nil {
		w.leave(p)
	}
	switch {
	case p.group != nil || !known:
	case g == nil:
		if w.homeless[p.Namespace] == nil {
			w.homeless[p.Namespace] = map[*pod]bool{}
		}
		w.homeless[p.Namespace][p] = true
	default:
		p.group, p.place = g, len(g.pods)
		g.pods = append(g.pods, p)
	}
	delete(w.moved, p)
}

// groupOf gives the group of all pods like one, empty if there is none so far.
func (w *world) groupOf(p *model.PolicyPod) *group {
	if g := w.lastGroup; g != nil && len(g.pods) > 0 && g.pods[0].like(p) {
		return g
	}
	var room [256]byte
	key := groupKey(room[:0], p)
	g := w.groups[string(key)]
	if g == nil {
		g = &group{key: string(key), account: p.ServiceAccount, labels: w.podLabels(p)}
		w.groups[g.key] = g
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
	w.lastGroup = g
	return g
}

// like reports whether two pods are of one group. Those of one list that come one after the other often are.
func (p *pod) like(o *model.PolicyPod) bool {
	return p.Namespace == o.Namespace && p.ServiceAccount == o.ServiceAccount && sameLabels(p.Labels, o.Labels)
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
	n := len(g.pods) - 1
	last := g.pods[n]
	g.pods[p.place], last.place, g.pods[n] = last, p.place, nil
	if g.pods, p.group = g.pods[:n], nil; n > 0 {
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

// groupKey appends what the pods of a group have in common.
func groupKey(b []byte, p *model.PolicyPod) []byte {
	b = append(append(append(b, p.Namespace...), 0), p.ServiceAccount...)
	keys := make([]string, 0, 16)
	for k := range p.Labels {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		b = append(append(append(append(b, 0), k...), 0), p.Labels[k]...)
	}
	return b
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
