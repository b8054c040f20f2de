package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/ipam"
	"github.com/muslin-net/muslin/pkg/model"
)

// apart tells why two Services cannot have one address; empty: they can.
func apart(a, b *wish) string {
	switch {
	case a.key == "" || a.key != b.key || a.Namespace != b.Namespace:
		return "the two do not name one " + AnnotationShare + " in one namespace"
	case a.LocalTraffic != b.LocalTraffic:
		return "their externalTrafficPolicy differs"
	case a.LocalTraffic && (a.Selector == "" || a.Selector != b.Selector):
		return "with externalTrafficPolicy Local both have to select the same pods"
	}
	for _, p := range a.Ports {
		if slices.Contains(b.Ports, p) {
			return fmt.Sprintf("both have port %d/%s", p.Port, p.Protocol)
		}
	}
	return ""
}

// mayShare reports whether everybody who holds an address lets w have it too; if
// not, who does not and why.
func (d *decider) mayShare(w *wish, a netip.Addr) (bool, string) {
	for _, other := range d.holders[a] {
		if why := apart(w, other); why != "" {
			return false, fmt.Sprintf("Service %s/%s has it, and %s", other.Namespace, other.Name, why)
		}
	}
	return true, ""
}

// shareable gives the lowest address that others of the same key hold and let w
// have, out of a pool that serves it.
func (d *decider) shareable(w *wish, f model.Family, within []netip.Prefix) (netip.Addr, bool) {
	var best netip.Addr
	for a := range d.holders {
		if w.key == "" || !f.Has(a) || best.IsValid() && best.Less(a) {
			continue
		}
		if !slices.ContainsFunc(within, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		if ok, _ := d.mayShare(w, a); ok {
			best = a
		}
	}
	return best, best.IsValid()
}

// alone tells of Services that name a key and share no address, though others of their
// namespace name it, too: the first of those, and why not with it.
func (d *decider) alone() {
	groups := map[[2]string][]*wish{}
	for _, w := range d.requested {
		if w.key != "" {
			of := [2]string{w.Namespace, w.key}
			groups[of] = append(groups[of], w)
		}
	}
	for _, w := range d.requested {
		group := groups[[2]string{w.Namespace, w.key}]
		for _, f := range w.families() {
			if a := w.has[f]; a.IsValid() && len(d.holders[a]) == 1 && d.tellApart(w, f, group) {
				break
			}
		}
	}
}

// tellApart tells why w shares no address of a family with the first of a group that it
// cannot share with; false: there is none.
func (d *decider) tellApart(w *wish, f model.Family, group []*wish) bool {
	for _, other := range group {
		if other == w || !other.has[f].IsValid() {
			continue
		}
		if why := apart(w, other); why != "" {
			d.tell(w, annotation(AnnotationShare), reasonNotShared, "has an address of its own: Service %s/%s has %s, and %s", other.Namespace, other.Name, other.has[f], why)
			return true
		}
	}
	return false
}

// inherits reports whether w may take over an address whose owner holds it no more:
// it shared it, by the key that is written beside it.
func (w *wish) inherits(was ipam.Attribute) bool {
	return w.key != "" && was.Owner[ownerKey] == w.key && was.Owner[ownerNamespace] == w.Namespace
}
