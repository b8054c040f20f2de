package policy

import (
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// held is a set of the last Program, and what has changed since.
type held struct {
	*Set
	source    *source
	addresses delta[netip.Addr]
	ports     delta[AddrPort]
}

// hold gives a set with its members, and keeps them right from then on.
func (w *world) hold(id SetID) *Set {
	if h := w.held[id]; h != nil {
		return h.Set
	}
	s := w.sources[id]
	h := &held{Set: &Set{ID: id, Kind: s.kind, Name: s.name, Nets: model.SortedOf(s.nets)}, source: s}
	w.held[id] = h
	switch {
	case s.of != nil:
		s.of.held = append(s.of.held, h)
	case s.kind == Ports && s.service == nil:
		w.named = append(w.named, h)
	}
	addrs, ports := w.members(s)
	h.Addresses, h.Ports = model.SortedOf(addrs), model.SortedOf(ports)
	if old, found := w.before.Get(h.Set); found && old.Name == h.Name && old.Addresses.Equal(h.Addresses) && old.Ports.Equal(h.Ports) && old.Nets.Equal(h.Nets) {
		h.Set = old
	}
	return h.Set
}

// members gives the addresses, or the ports, of a set.
func (w *world) members(s *source) (addrs []netip.Addr, ports []AddrPort) {
	for _, g := range w.groupsOf(s) {
		for _, p := range g.pods {
			for _, a := range p.claims {
				switch {
				case !w.owns(p, a) || !s.has(p):
				case s.kind == Addresses:
					addrs = append(addrs, a)
				default:
					ports = append(ports, s.named(p, a)...)
				}
			}
		}
	}
	for _, e := range s.service {
		if s.kind == Addresses {
			addrs = append(addrs, e.Addr)
		} else if e.Protocol != 0 {
			ports = append(ports, AddrPort(e))
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return addrs, ports
}

// release ends what hold began.
func (w *world) release(h *held) {
	delete(w.held, h.ID)
	delete(w.replaced, h)
	is := func(o *held) bool { return o == h }
	if of := h.source.of; of != nil {
		of.held = slices.DeleteFunc(of.held, is)
	}
	w.named = slices.DeleteFunc(w.named, is)
}

// groupsOf gives the groups whose pods may be in a set.
func (w *world) groupsOf(s *source) []*group {
	var out []*group
	switch {
	case s.kind == Nets || s.service != nil:
	case s.of != nil:
		for g := range s.of.groups {
			out = append(out, g)
		}
	default:
		for _, g := range w.groups {
			out = append(out, g)
		}
	}
	return out
}

// contribute notes that an address becomes a pod's own, or no longer is, in all
// sets that have the pod.
func (w *world) contribute(p *pod, a netip.Addr, own bool) {
	if p.group == nil {
		return
	}
	for c := range p.group.choices {
		for _, h := range c.held {
			w.note(h, p, a, own)
		}
	}
	for _, h := range w.named {
		if h.source.has(p) {
			w.note(h, p, a, own)
		}
	}
}

func (w *world) note(h *held, p *pod, a netip.Addr, own bool) {
	if h.addresses == nil {
		h.addresses, h.ports = delta[netip.Addr]{}, delta[AddrPort]{}
		w.noted = append(w.noted, h)
	}
	if h.Kind == Addresses {
		h.addresses[a] = own
		return
	}
	for _, port := range h.source.named(p, a) {
		h.ports[port] = own
	}
}

// settle makes the members of sets what was noted, and gives those that are others now.
func (w *world) settle() []*Set {
	var changed []*Set
	for _, h := range w.noted {
		next := *h.Set
		addresses, ports := h.addresses.apply(&next.Addresses), h.ports.apply(&next.Ports)
		if h.addresses, h.ports = nil, nil; addresses || ports {
			h.Set = &next
			changed = append(changed, h.Set)
		}
	}
	w.noted = nil
	for h := range w.replaced {
		next := *h.Set
		addrs, ports := w.members(h.source)
		if exchange(&next.Nets, h.source.nets) || exchange(&next.Addresses, addrs) || exchange(&next.Ports, ports) {
			h.Set = &next // it has members of one kind
			changed = append(changed, h.Set)
		}
	}
	clear(w.replaced)
	return changed
}

// exchange has other members in a list, and reports whether it was another.
func exchange[T interface{ Compare(T) int }](list *model.Sorted[T], members []T) bool {
	var put, drop []T
	for was, is := range model.SortedOf(members).Since(*list) {
		switch {
		case is == nil:
			drop = append(drop, *was)
		case was == nil:
			put = append(put, *is)
		}
	}
	*list = list.With(put, drop)
	return len(put)+len(drop) > 0
}

// delta is whether members are in a set or not, as noted last.
type delta[T interface {
	comparable
	Compare(T) int
}] map[T]bool

// apply changes a list to what was noted, and reports whether it was another.
func (d delta[T]) apply(list *model.Sorted[T]) bool {
	var put, drop []T
	for member, in := range d {
		if _, found := list.Get(member); in && !found {
			put = append(put, member)
		} else if found && !in {
			drop = append(drop, member)
		}
	}
	if len(put)+len(drop) == 0 {
		return false
	}
	*list = list.With(put, drop)
	return true
}
