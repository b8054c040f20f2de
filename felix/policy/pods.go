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
	place            int    // among the pods of the group
	ends             []model.Endpoint
	claims           []netip.Addr // what it says its addresses are
}

// pods are the pods of the last view, and whose each address is.
type pods struct {
	listed      model.Sorted[*model.PolicyPod]
	lastEnds    []model.Endpoint
	byKey       map[podKey]*pod
	groups      map[string]*group
	lastGroup   *group // that a pod was found to be of
	byNamespace map[string]map[*group]bool
	homeless    map[string]map[*pod]bool // those of namespaces that are not known
	moved       map[*pod]bool            // those that are to look for a group anew
	coming      map[*pod]bool            // pods of this node that have no endpoint yet, or none any more
	owners      map[netip.Addr]*pod
	contested   map[netip.Addr][]*pod // all that claim an address, where several do
	disputed    bool                  // who claims what is another question than when it was reported
}

func newPods() pods {
	return pods{
		byKey: map[podKey]*pod{}, groups: map[string]*group{}, byNamespace: map[string]map[*group]bool{},
		homeless: map[string]map[*pod]bool{}, moved: map[*pod]bool{},
		owners: map[netip.Addr]*pod{}, contested: map[netip.Addr][]*pod{}, coming: map[*pod]bool{},
	}
}

// update takes over pods and endpoints, and puts the members of sets that are
// held right. It looks at what is not shared with the last view. Pods in the host's network are none here.
func (w *world) update(list model.Sorted[*model.PolicyPod], ends []model.Endpoint) {
	if len(w.byKey) == 0 {
		w.byKey, w.owners = make(map[podKey]*pod, list.Len()), make(map[netip.Addr]*pod, list.Len())
	}
	w.updateEnds(ends)
	for was, is := range list.Since(w.listed) {
		switch {
		case is == nil:
			p := w.at(*was)
			w.become(p, *was, false, p.ends)
		case was == nil || !samePod(*was, *is):
			p := w.at(*is)
			w.become(p, *is, !(*is).HostNetwork, p.ends)
		}
	}
	w.listed = list
	for p := range w.moved {
		w.become(p, p.PolicyPod, p.known, p.ends)
	}
}

// at gives what has the name of a pod.
func (w *world) at(name *model.PolicyPod) *pod {
	k := keyOf(name)
	p := w.byKey[k]
	if p == nil {
		p = &pod{PolicyPod: name}
		w.byKey[k] = p
	}
	return p
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

func (w *world) updateEnds(ends []model.Endpoint) {
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
	for k := range old {
		if now[k] == nil {
			now[k] = nil // gone
		}
	}
	same := func(a, b model.Endpoint) bool { return slices.Equal(a.Addresses, b.Addresses) }
	for k, list := range now {
		if !slices.EqualFunc(list, old[k], same) {
			p := w.at(&model.PolicyPod{Namespace: k.namespace, Name: k.name})
			w.become(p, p.PolicyPod, p.known, list)
		}
	}
	w.lastEnds, w.stale, w.restless = ends, true, true
}

// become makes a name what it is now: a pod, if one is known, and endpoints.
func (w *world) become(p *pod, is *model.PolicyPod, known bool, ends []model.Endpoint) {
	if len(p.ends) > 0 {
		w.stale, w.restless = true, true
	}
	for _, a := range p.claims {
		w.unclaim(p, a)
	}
	if !known {
		is = &model.PolicyPod{Namespace: p.Namespace, Name: p.Name}
	}
	w.join(p, is, known)
	p.PolicyPod, p.known, p.ends = is, known, ends
	p.claims = w.claimsOf(p)
	for _, a := range p.claims {
		w.claim(p, a)
	}
	w.expect(p)
	if !p.known && len(p.ends) == 0 {
		delete(w.byKey, keyOf(p.PolicyPod))
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
	switch {
	case p.Finished:
	case len(p.ends) > 0:
		var all []netip.Addr
		for _, e := range p.ends {
			all = append(all, e.Addresses...)
		}
		return bare(all)
	case w.self == "" || p.Node != w.self:
		return bare(p.Addresses)
	}
	return nil
}

// bare gives addresses as packets have them, each once: those given, if they are.
func bare(given []netip.Addr) []netip.Addr {
	plain := func(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }
	for i, a := range given {
		if a == plain(a) && !slices.Contains(given[:i], a) {
			continue
		}
		out := slices.Clone(given[:i])
		for _, a := range given[i:] {
			if a = plain(a); !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
		return out
	}
	return given
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

// claim gives an address to a pod, unless another one that claims it has more right to. A union of
// those that claim it would let one act as the other.
func (w *world) claim(p *pod, a netip.Addr) {
	o := w.owners[a]
	if o == nil {
		w.own(p, a)
		return
	}
	if w.disputed = true; w.contested[a] == nil {
		w.contested[a] = []*pod{o}
	}
	w.contested[a] = append(w.contested[a], p)
	if p.better(o, a) {
		w.contribute(o, a, false)
		w.own(p, a)
	}
}

// unclaim takes back what claim did.
func (w *world) unclaim(p *pod, a netip.Addr) {
	others := w.contested[a]
	if len(others) > 0 {
		w.disputed = true
		others = slices.DeleteFunc(others, func(o *pod) bool { return o == p })
		if w.contested[a] = others; len(others) == 1 {
			delete(w.contested, a)
		}
	}
	if w.owners[a] != p {
		return
	}
	w.contribute(p, a, false)
	if delete(w.owners, a); len(others) > 0 {
		best := others[0]
		for _, o := range others[1:] {
			if o.better(best, a) {
				best = o
			}
		}
		w.own(best, a)
	}
}

// own has an address be a pod's own.
func (w *world) own(p *pod, a netip.Addr) {
	w.owners[a] = p
	w.contribute(p, a, true)
}

// owns reports whether an address that a pod claims is its own.
func (w *world) owns(p *pod, a netip.Addr) bool { return w.contested[a] == nil || w.owners[a] == p }

// claimedTwice reports whose claims are not believed.
func (w *world) claimedTwice() []model.Problem {
	var out []model.Problem
	for a, claimants := range w.contested {
		best := w.owners[a]
		for _, p := range claimants {
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
