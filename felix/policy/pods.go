package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

type podKey struct{ namespace, name string }

func keyOf(p *model.PolicyPod) podKey { return podKey{p.Namespace, p.Name} }

// pod is what has that name: a pod of the API, endpoints of this node, or both.
type pod struct {
	*model.PolicyPod // of the last view, if known; else a name
	known            bool
	group            *group // nil: the pod or its namespace is not known
	ends             []model.Endpoint
	claims           []netip.Addr // what it says its addresses are
	addrs            []netip.Addr // those of them that are its own
}

// pods are the pods of the last view, and whose each address is.
type pods struct {
	listed      model.Sorted[*model.PolicyPod]
	lastEnds    []model.Endpoint
	byKey       map[podKey]*pod
	groups      map[string]*group
	byNamespace map[string]map[*group]bool
	homeless    map[string]map[*pod]bool // those of namespaces that are not known
	moved       map[podKey]bool          // those that are to look for a group anew
	coming      map[*pod]bool            // pods of this node that have no endpoint yet, or none any more
	claimants   map[netip.Addr][]*pod
	contested   map[netip.Addr]bool
	disputed    bool // who claims what is another question than when it was reported
}

func newPods() pods {
	return pods{
		byKey: map[podKey]*pod{}, groups: map[string]*group{}, byNamespace: map[string]map[*group]bool{},
		homeless: map[string]map[*pod]bool{}, moved: map[podKey]bool{},
		claimants: map[netip.Addr][]*pod{}, contested: map[netip.Addr]bool{}, coming: map[*pod]bool{},
	}
}

// change is what is new of a name; nil: as before, or gone.
type change struct {
	pod     *model.PolicyPod
	podGone bool
	ends    *[]model.Endpoint
}

// update takes over pods and endpoints, and puts the members of sets that are
// held right.
func (w *world) update(list model.Sorted[*model.PolicyPod], ends []model.Endpoint) {
	changes := map[podKey]*change{}
	if len(w.byKey) == 0 {
		changes, w.byKey = make(map[podKey]*change, list.Len()), make(map[podKey]*pod, list.Len())
	}
	at := func(k podKey) *change {
		if changes[k] == nil {
			changes[k] = &change{}
		}
		return changes[k]
	}
	w.diffPods(list, at)
	w.diffEnds(ends, at)
	for k := range w.moved {
		if c := at(k); c.pod == nil && !c.podGone {
			c.set(w.byKey[k].PolicyPod)
		}
	}
	clear(w.moved)
	if len(changes) == 0 {
		return
	}
	dirty := map[netip.Addr]bool{}
	for k := range changes {
		if p := w.byKey[k]; p != nil {
			for _, a := range p.claims {
				dirty[a] = true
			}
		}
	}
	for a := range dirty {
		w.disown(a)
	}
	for k, c := range changes {
		w.apply(k, c)
		if p := w.byKey[k]; p != nil {
			for _, a := range p.claims {
				if !dirty[a] {
					w.disown(a)
					dirty[a] = true
				}
			}
		}
	}
	w.own(dirty)
}

// diffPods looks at what is not shared with the last view. Pods in the host's network
// are none here.
func (w *world) diffPods(list model.Sorted[*model.PolicyPod], at func(podKey) *change) {
	for was, is := range list.Since(w.listed) {
		switch {
		case is == nil:
			at(keyOf(*was)).podGone = true
		case was == nil || !samePod(*was, *is):
			at(keyOf(*is)).set(*is)
		}
	}
	w.listed = list
}

func (c *change) set(p *model.PolicyPod) {
	c.pod, c.podGone = p, p.HostNetwork
	if p.HostNetwork {
		c.pod = nil
	}
}

// samePod is quick where two lists share what did not change.
func samePod(a, b *model.PolicyPod) bool {
	return a == b || a.Node == b.Node && a.ServiceAccount == b.ServiceAccount && a.Created.Equal(b.Created) &&
		a.HostNetwork == b.HostNetwork && a.Finished == b.Finished && slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.Leased, b.Leased) && slices.Equal(a.Ports, b.Ports) && sameLabels(a.Labels, b.Labels)
}

// sameLabels is quick, too.
func sameLabels(a, b map[string]string) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(b).Pointer() || maps.Equal(a, b)
}

func (w *world) diffEnds(ends []model.Endpoint, at func(podKey) *change) {
	if len(ends) == len(w.lastEnds) && (len(ends) == 0 || &ends[0] == &w.lastEnds[0]) {
		return
	}
	of := func(list []model.Endpoint) map[podKey][]model.Endpoint {
		out := map[podKey][]model.Endpoint{}
		for _, e := range list {
			k := podKey{e.Namespace, e.Pod}
			out[k] = append(out[k], e)
		}
		return out
	}
	old, now := of(w.lastEnds), of(ends)
	same := func(a, b model.Endpoint) bool { return slices.Equal(a.Addresses, b.Addresses) }
	for k, list := range now {
		if !slices.EqualFunc(list, old[k], same) {
			at(k).ends = &list
		}
	}
	for k := range old {
		if _, still := now[k]; !still {
			at(k).ends = &[]model.Endpoint{}
		}
	}
	w.lastEnds, w.stale, w.restless = ends, true, true
}

// apply makes one name what it is now.
func (w *world) apply(k podKey, c *change) {
	p := w.byKey[k]
	if p == nil {
		p = &pod{PolicyPod: &model.PolicyPod{Namespace: k.namespace, Name: k.name}}
		w.byKey[k] = p
	}
	if len(p.ends) > 0 {
		w.stale, w.restless = true, true
	}
	for _, a := range p.claims {
		w.claimants[a] = slices.DeleteFunc(w.claimants[a], func(o *pod) bool { return o == p })
		if len(w.claimants[a]) == 0 {
			delete(w.claimants, a)
		}
	}
	if c.ends != nil {
		p.ends = *c.ends
	}
	if c.podGone || c.pod != nil {
		w.leave(p)
		if p.known = c.pod != nil; p.known {
			p.PolicyPod = c.pod
			w.join(p)
		} else {
			p.PolicyPod = &model.PolicyPod{Namespace: k.namespace, Name: k.name}
		}
	}
	p.claims = w.claimsOf(p)
	for _, a := range p.claims {
		w.claimants[a] = append(w.claimants[a], p)
	}
	w.expect(p)
	if !p.known && len(p.ends) == 0 {
		delete(w.byKey, k)
	}
}

// expect notes whether a pod of this node may still come to an endpoint.
func (w *world) expect(p *pod) {
	comes := p.known && p.Node == w.self && !p.Finished && len(p.ends) == 0 && w.self != ""
	if comes || w.coming[p] {
		w.stale, w.restless = true, true
	}
	if delete(w.coming, p); comes {
		w.coming[p] = true
	}
}

// claimsOf gives the addresses that a pod has if nobody else has them: what its
// sandbox here has, else what the API says, unless it is a pod of this node: that
// one has no sandbox.
func (w *world) claimsOf(p *pod) []netip.Addr {
	var out []netip.Addr
	add := func(addrs []netip.Addr) {
		for _, a := range addrs {
			if a = a.Unmap().WithZone(""); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	switch {
	case p.Finished:
	case len(p.ends) > 0:
		for _, e := range p.ends {
			add(e.Addresses)
		}
	case w.self == "" || p.Node != w.self:
		add(p.Addresses)
	}
	return out
}

// better reports whether p is believed rather than o, where both claim an
// address: whose sandbox is here; then one that is not known, as nobody else may
// act as it; then whom a block gives it to; then the younger.
func (p *pod) better(o *pod, addr netip.Addr) bool {
	if a, b := len(p.ends) > 0, len(o.ends) > 0; a != b {
		return a
	}
	if p.known != o.known {
		return !p.known
	}
	if a, b := slices.Contains(p.Leased, addr), slices.Contains(o.Leased, addr); a != b {
		return a
	}
	return cmp.Or(p.Created.Compare(o.Created), cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name)) > 0
}

// winner gives the pod that has an address. A union of those that claim it would
// let one act as the other.
func (w *world) winner(a netip.Addr) *pod {
	var best *pod
	for _, p := range w.claimants[a] {
		if best == nil || p.better(best, a) {
			best = p
		}
	}
	return best
}

// disown takes an address from who has it, and out of sets.
func (w *world) disown(a netip.Addr) {
	for _, p := range w.claimants[a] {
		if i := slices.Index(p.addrs, a); i >= 0 {
			p.addrs = slices.Delete(p.addrs, i, i+1)
			w.contribute(p, a, false)
		}
	}
}

// own gives addresses to those that win them, and puts them into sets.
func (w *world) own(addrs map[netip.Addr]bool) {
	for a := range addrs {
		w.disputed = w.disputed || w.contested[a] || len(w.claimants[a]) > 1
		delete(w.contested, a)
		p := w.winner(a)
		if p == nil {
			continue
		}
		if len(w.claimants[a]) > 1 {
			w.contested[a] = true
		}
		p.addrs = append(p.addrs, a)
		w.contribute(p, a, true)
	}
}

// claimedTwice reports whose claims are not believed.
func (w *world) claimedTwice() []model.Problem {
	var out []model.Problem
	for a := range w.contested {
		best := w.winner(a)
		for _, p := range w.claimants[a] {
			if p == best || !p.known {
				continue
			}
			whose := "a pod that is not known"
			if best.known {
				whose = "Pod " + best.Namespace + "/" + best.Name
			}
			out = append(out, model.Problem{
				Object: model.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}, Field: "status.podIPs", Reason: "AddressClaimedTwice",
				Message: fmt.Sprintf("%s is the address of %s, too; policy takes it for the latter's", a, whose),
			})
		}
	}
	return out
}
