package policy

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

type podKey struct{ namespace, name string }

// compare orders keys as "namespace/name" sorts.
func (k podKey) compare(o podKey) int {
	n := min(len(k.namespace), len(o.namespace))
	if c := strings.Compare(k.namespace[:n], o.namespace[:n]); c != 0 {
		return c
	}
	switch {
	case len(k.namespace) > n:
		return cmp.Compare(k.namespace[n], '/')
	case len(o.namespace) > n:
		return cmp.Compare('/', o.namespace[n])
	}
	return strings.Compare(k.name, o.name)
}

func keyOf(p *model.PolicyPod) podKey { return podKey{p.Namespace, p.Name} }

// pod is what has that name: a pod of the API, endpoints of this node, or both.
type pod struct {
	model.PolicyPod // of the last view, if known
	known           bool
	group           *group // nil: the pod or its namespace is not known
	ends            []model.Endpoint
	claims          []netip.Addr // what it says its addresses are
	addrs           map[netip.Addr]bool
}

// pods are the pods of the last view, and whose each address is.
type pods struct {
	last        []model.PolicyPod
	lastEnds    []model.Endpoint
	byKey       map[podKey]*pod
	groups      map[string]*group
	byNamespace map[string]map[*group]bool
	claimants   map[netip.Addr][]*pod
	contested   map[netip.Addr]bool
}

func newPods() pods {
	return pods{
		byKey: map[podKey]*pod{}, groups: map[string]*group{}, byNamespace: map[string]map[*group]bool{},
		claimants: map[netip.Addr][]*pod{}, contested: map[netip.Addr]bool{},
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
func (w *world) update(list []model.PolicyPod, ends []model.Endpoint) {
	changes := map[podKey]*change{}
	at := func(k podKey) *change {
		if changes[k] == nil {
			changes[k] = &change{}
		}
		return changes[k]
	}
	w.diffPods(list, at)
	w.diffEnds(ends, at)
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
	w.disown(dirty)
	for k, c := range changes {
		w.apply(k, c)
		if p := w.byKey[k]; p != nil {
			for _, a := range p.claims {
				if !dirty[a] {
					w.disown(map[netip.Addr]bool{a: true})
				}
				dirty[a] = true
			}
		}
	}
	w.own(dirty)
	w.settle()
}

// diffPods compares two lists that are sorted by name. Pods in the host's network
// are none here.
func (w *world) diffPods(list []model.PolicyPod, at func(podKey) *change) {
	compare := func(a, b model.PolicyPod) int { return keyOf(&a).compare(keyOf(&b)) }
	if !slices.IsSortedFunc(list, compare) {
		list = slices.Clone(list)
		slices.SortStableFunc(list, compare)
	}
	old, now := w.last, list
	for len(old) > 0 || len(now) > 0 {
		var c int
		switch {
		case len(old) == 0:
			c = 1
		case len(now) == 0:
			c = -1
		default:
			c = keyOf(&old[0]).compare(keyOf(&now[0]))
		}
		switch {
		case c < 0:
			at(keyOf(&old[0])).podGone = true
			old = old[1:]
			continue
		case c == 0:
			if !samePod(&old[0], &now[0]) {
				at(keyOf(&now[0])).set(&now[0])
			}
			old = old[1:]
		default:
			at(keyOf(&now[0])).set(&now[0])
		}
		now = now[1:]
	}
	w.last = list
}

func (c *change) set(p *model.PolicyPod) {
	c.pod, c.podGone = p, p.HostNetwork
	if p.HostNetwork {
		c.pod = nil
	}
}

// samePod is quick where two lists share what did not change.
func samePod(a, b *model.PolicyPod) bool {
	return a.Node == b.Node && a.ServiceAccount == b.ServiceAccount && a.Created.Equal(b.Created) &&
		a.HostNetwork == b.HostNetwork && a.Finished == b.Finished && slices.Equal(a.Addresses, b.Addresses) &&
		slices.Equal(a.Ports, b.Ports) && (reflect.ValueOf(a.Labels).Pointer() == reflect.ValueOf(b.Labels).Pointer() || maps.Equal(a.Labels, b.Labels))
}

func (w *world) diffEnds(ends []model.Endpoint, at func(podKey) *change) {
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
	w.lastEnds = slices.Clone(ends)
}

// apply makes one name what it is now.
func (w *world) apply(k podKey, c *change) {
	p := w.byKey[k]
	if p == nil {
		p = &pod{addrs: map[netip.Addr]bool{}}
		p.Namespace, p.Name = k.namespace, k.name
		w.byKey[k] = p
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
		p.known = c.pod != nil
		p.PolicyPod = model.PolicyPod{Namespace: k.namespace, Name: k.name}
		if p.known {
			p.PolicyPod = *c.pod
			w.join(p)
		}
	}
	p.claims = w.claimsOf(p)
	for _, a := range p.claims {
		w.claimants[a] = append(w.claimants[a], p)
	}
	if !p.known && len(p.ends) == 0 {
		delete(w.byKey, k)
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
// act as it; then the younger.
func (p *pod) better(o *pod) bool {
	if a, b := len(p.ends) > 0, len(o.ends) > 0; a != b {
		return a
	}
	if p.known != o.known {
		return !p.known
	}
	return cmp.Or(p.Created.Compare(o.Created), cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Name, o.Name)) > 0
}

// winner gives the pod that has an address. A union of those that claim it would
// let one act as the other.
func (w *world) winner(a netip.Addr) *pod {
	var best *pod
	for _, p := range w.claimants[a] {
		if best == nil || p.better(best) {
			best = p
		}
	}
	return best
}

// disown takes addresses from those that have them, and out of sets.
func (w *world) disown(addrs map[netip.Addr]bool) {
	for a := range addrs {
		for _, p := range w.claimants[a] {
			if p.addrs[a] {
				delete(p.addrs, a)
				w.contribute(p, a, false)
			}
		}
	}
}

// own gives addresses to those that win them, and puts them into sets.
func (w *world) own(addrs map[netip.Addr]bool) {
	for a := range addrs {
		delete(w.contested, a)
		p := w.winner(a)
		if p == nil {
			continue
		}
		if len(w.claimants[a]) > 1 {
			w.contested[a] = true
		}
		p.addrs[a] = true
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
