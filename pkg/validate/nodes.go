package validate

import (
	"maps"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// ReasonNoNode is that of an object that is for nodes of which there is none.
const ReasonNoNode = "NoNode"

// Nodes are those of a cluster, and of each selector that was asked for the name of one
// that it selects. What is kept between two looks makes the second one cost what has
// changed, not all nodes for each selector. The zero value knows none.
type Nodes struct {
	labels  map[model.NodeName]map[string]string
	changed []model.NodeName
	found   map[string]model.NodeName // by the selector's text; empty: it selects none
	before  map[string]model.NodeName // found, of the look before
}

// See takes notice of the nodes as they are now.
func (n *Nodes) See(nodes []model.Node) {
	labels := make(map[model.NodeName]map[string]string, len(nodes))
	n.changed = nil
	for i := range nodes {
		o := &nodes[i]
		labels[o.Name] = o.Labels
		if old, known := n.labels[o.Name]; !known || !maps.Equal(old, o.Labels) {
			n.changed = append(n.changed, o.Name)
		}
	}
	n.labels = labels
	n.before, n.found = n.found, map[string]model.NodeName{}
}

// has reports whether there is a node of this name.
func (n *Nodes) has(name model.NodeName) bool {
	_, ok := n.labels[name]
	return ok
}

// none reports whether a selector is set and selects no node.
func (n *Nodes) none(s model.Selector) bool {
	if s == nil {
		return false
	}
	text := s.String()
	name, known := n.found[text]
	if !known {
		name = n.find(s, text)
		n.found[text] = name
	}
	return name == ""
}

// find gives a node that a selector selects: that of the look before if it still does,
// else one that is new or has other labels, else, if another was found before, any.
func (n *Nodes) find(s model.Selector, text string) model.NodeName {
	last, known := n.before[text]
	if labels, ok := n.labels[last]; ok && s.Matches(labels) {
		return last
	}
	for _, name := range n.changed {
		if s.Matches(n.labels[name]) {
			return name
		}
	}
	if known && last == "" {
		return ""
	}
	for name, labels := range n.labels {
		if s.Matches(labels) {
			return name
		}
	}
	return ""
}

// Placed finds what is written for nodes that are not there: FelixConfigurations and
// HostEndpoints of one node, and pools for nodes with labels that none has. nodes have
// seen those of the snapshot.
func Placed(s model.Snapshot, hosts []model.HostEndpoint, nodes *Nodes) []model.Problem {
	var out []model.Problem
	note := func(ref model.Ref, field, reason, message string) {
		out = append(out, model.Problem{Object: ref, Field: field, Reason: reason, Message: message})
	}
	for i := range s.Felix {
		if name, ok := strings.CutPrefix(s.Felix[i].Name, "node."); ok && !nodes.has(model.NodeName(name)) {
			note(model.Ref{Kind: "FelixConfiguration", Name: s.Felix[i].Name}, "metadata.name", ReasonUnknownName, "there is no node "+name)
		}
	}
	for i := range hosts {
		if h := &hosts[i]; h.Node != "" && !nodes.has(h.Node) {
			note(h.Object, "spec.node", ReasonUnknownName, "there is no node "+string(h.Node))
		}
	}
	for i := range s.Pools {
		if p := &s.Pools[i]; !p.LoadBalancerOnly() && nodes.none(p.NodeSelector) {
			note(model.Ref{Kind: "IPPool", Name: p.Name}, "spec.nodeSelector", ReasonNoNode, "no node has such labels: nobody gets an address of it")
		}
	}
	return out
}
