package policy

import (
	"cmp"
	"maps"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Need is what a rule asks of pods of all nodes: one of the two is set.
type Need struct {
	Selector string // the text of a selector: the pods that it selects
	Port     string // the name of a port: the pods that declare it
}

// Compare orders by selector, then port.
func (n Need) Compare(o Need) int {
	return cmp.Or(cmp.Compare(n.Selector, o.Selector), cmp.Compare(n.Port, o.Port))
}

// needsOf gives what a rule in that direction needs. A selector is needed without what a
// NotSelector takes away from it again.
func needsOf(r *model.PolicyRule, d direction) []Need {
	var out []Need
	for i, p := range []*model.PolicyPeer{&r.Source, &r.Destination} {
		own := (i == 1) == (d == ingress)
		switch {
		case p.Selector != nil:
			out = append(out, Need{Selector: p.Selector.String()})
			continue // its pods have the ports that are named, too
		case p.NotSelector != nil:
			out = append(out, Need{Selector: p.NotSelector.String()})
		}
		for _, port := range slices.Concat(p.Ports, p.NotPorts) {
			if port.Name != "" && !own {
				out = append(out, Need{Port: port.Name})
			}
		}
	}
	return out
}

// knows reports whether the pods that are needed are known.
func (w *world) knows(needs []Need) bool {
	return w.known == nil || !slices.ContainsFunc(needs, func(n Need) bool { return !w.known[n] })
}

// needs gives what the policies of this node's endpoints need, sorted: no matter which of
// it is known, and which of their chains lead to others.
func (w *world) needs() []Need {
	if w.known == nil {
		return nil
	}
	all := map[Need]bool{}
	for _, s := range w.subjects {
		if s.round != w.round {
			continue // was not asked for
		}
		for _, p := range s.policies {
			for _, n := range slices.Concat(p.needs[ingress], p.needs[egress]) {
				all[n] = true
			}
		}
	}
	return slices.SortedFunc(maps.Keys(all), Need.Compare)
}

func sameKnown(a, b map[Need]bool) bool { return (a == nil) == (b == nil) && maps.Equal(a, b) }

// Labels gives what selectors see of a pod: its labels, where it is, and what it inherits
// of its namespace and its service account, whose labels they are.
func Labels(p *model.PolicyPod, namespace, account map[string]string) map[string]string {
	out := make(map[string]string, len(p.Labels)+len(namespace)+len(account)+5)
	inherit(out, p.Namespace, namespace)
	for k, v := range account {
		out[model.LabelPrefixOfAccount+k] = v
	}
	if p.ServiceAccount != "" {
		out[model.LabelPrefixOfAccount+model.LabelOwnName] = p.ServiceAccount
	}
	addOwn(out, p.Labels)
	out[model.LabelNamespace], out[model.LabelOrchestrator] = p.Namespace, model.OrchestratorKubernetes
	if n := len(p.ServiceAccount); n > 0 && n <= longestAccount {
		out[model.LabelServiceAccount] = p.ServiceAccount
	}
	return out
}
