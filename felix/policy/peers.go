package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

type podKey struct{ namespace, name string }

// pod is a pod that can be subject or peer.
type pod struct {
	*model.PolicyPod
	group *group // nil: its namespace is not known
	local bool   // has an endpoint on this node
	addrs []netip.Addr
}

// group is pods that have the same labels: no selector tells them apart.
type group struct {
	labels map[string]string
	pods   []*pod
}

// netset is a network set with the labels it is selected by.
type netset struct {
	labels map[string]string
	ranges []Range
}

// findGroups takes the pods that have an address of their own, by their labels.
func (c *casefile) findGroups() {
	byKey := map[string]*group{}
	for i := range c.View.Pods {
		p := &pod{PolicyPod: &c.View.Pods[i]}
		if p.HostNetwork {
			continue
		}
		c.pods[podKey{p.Namespace, p.Name}] = p
		if _, known := c.View.Namespaces[p.Namespace]; !known {
			continue
		}
		key := groupKey(p.PolicyPod)
		g := byKey[key]
		if g == nil {
			g = &group{labels: c.podLabels(p.PolicyPod)}
			byKey[key] = g
			c.groups = append(c.groups, g)
			c.byName[p.Namespace] = append(c.byName[p.Namespace], g)
		}
		p.group = g
		g.pods = append(g.pods, p)
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

// podLabels gives what selectors see of a pod: its labels, where it is, and what
// it inherits. Its own win over inherited ones.
func (c *casefile) podLabels(p *model.PolicyPod) map[string]string {
	out := map[string]string{}
	c.inherit(out, p.Namespace)
	for k, v := range c.View.ServiceAccounts[p.Namespace+"/"+p.ServiceAccount] {
		out[model.LabelPrefixOfAccount+k] = v
	}
	if p.ServiceAccount != "" {
		out[model.LabelPrefixOfAccount+model.LabelOwnName] = p.ServiceAccount
	}
	maps.Copy(out, p.Labels)
	out[model.LabelNamespace], out[model.LabelOrchestrator] = p.Namespace, model.OrchestratorKubernetes
	delete(out, model.LabelServiceAccount)
	if n := len(p.ServiceAccount); n > 0 && n <= longestAccount {
		out[model.LabelServiceAccount] = p.ServiceAccount
	}
	return out
}

func (c *casefile) inherit(out map[string]string, namespace string) {
	for k, v := range c.View.Namespaces[namespace] {
		out[model.LabelPrefixOfNamespace+k] = v
	}
	out[model.LabelPrefixOfNamespace+model.LabelOwnName] = namespace
}

// findNetworkSets gives each set its labels. One with a namespace that is not
// known yet is of no use to selectors of namespaces, and is left out.
func (c *casefile) findNetworkSets() {
	for _, s := range c.View.NetworkSets {
		labels := map[string]string{}
		if ns := s.Object.Namespace; ns != "" {
			if _, known := c.View.Namespaces[ns]; !known {
				continue
			}
			c.inherit(labels, ns)
			maps.Copy(labels, s.Labels)
			labels[model.LabelNamespace] = ns
		} else {
			maps.Copy(labels, s.Labels)
			delete(labels, model.LabelNamespace)
		}
		c.netsets = append(c.netsets, netset{labels, mergePrefixes(s.Nets)})
	}
}

// claim is what a pod says of an address.
type claim struct {
	pod   *pod // nil: an endpoint of this node whose pod is not known
	local bool // its sandbox is on this node and has the address
}

// better reports whether a is believed rather than b: whose sandbox is here, then
// the younger one.
func (a claim) better(b claim) bool {
	if a.local != b.local {
		return a.local
	}
	if a.pod == nil || b.pod == nil {
		return a.pod == nil
	}
	return cmp.Or(a.pod.Created.Compare(b.pod.Created), cmp.Compare(a.pod.Namespace, b.pod.Namespace),
		cmp.Compare(a.pod.Name, b.pod.Name)) > 0
}

// findOwners gives each address to one pod. A union of those that claim it would
// let one act as the other.
func (c *casefile) findOwners() {
	owners := map[netip.Addr]claim{}
	for _, e := range c.Endpoints {
		p := c.pods[podKey{e.Namespace, e.Pod}]
		if p != nil {
			p.local = true
		}
		if p == nil || !p.Finished {
			c.give(owners, e.Addresses, claim{p, true})
		}
	}
	for i := range c.View.Pods {
		v := &c.View.Pods[i]
		p := c.pods[podKey{v.Namespace, v.Name}]
		if p == nil || p.PolicyPod != v || p.Finished || p.local || c.Self != "" && v.Node == c.Self {
			continue
		}
		c.give(owners, v.Addresses, claim{p, false})
	}
	for a, o := range owners {
		if o.pod != nil {
			o.pod.addrs = append(o.pod.addrs, a)
		}
	}
}

// give lets the better of two claims win, and reports the other.
func (c *casefile) give(owners map[netip.Addr]claim, addrs []netip.Addr, by claim) {
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		old, taken := owners[a]
		if !taken || old.pod == by.pod {
			owners[a] = by
			continue
		}
		winner, loser := by, old
		if old.better(by) {
			winner, loser = old, by
		}
		owners[a] = winner
		c.twoClaims(a, winner, loser)
	}
}

func (c *casefile) twoClaims(a netip.Addr, winner, loser claim) {
	name := func(p *pod) model.Ref {
		if p == nil {
			return model.Ref{Kind: "Pod", Name: "that is not known"}
		}
		return model.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
	}
	c.problem(name(loser.pod), "status.podIPs", "AddressClaimedTwice",
		fmt.Sprintf("%s is the address of %s, too; policy takes it for the latter's", a, name(winner.pod)))
}
