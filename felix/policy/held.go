package policy

import (
	"net/netip"
	"slices"
)

// held is a set of the last Program, and what has changed since.
type held struct {
	Set
	source *source
	addrs  delta[netip.Addr]
	ports  delta[AddrPort]
}

// hold gives a set with its members, and keeps them right from then on.
func (w *world) hold(id SetID) Set {
	if h := w.held[id]; h != nil {
		return h.Set
	}
	s := w.sources[id]
	h := &held{Set: Set{ID: id, Kind: s.kind, Name: s.name, Nets: s.nets}, source: s}
	w.held[id] = h
	groups := w.groupsOf(s)
	for _, g := range groups {
		for p := range g.pods {
			if s.has(p) {
				for a := range p.addrs {
					h.add(p, a)
				}
			}
		}
	}
	for _, e := range s.service {
		if h.Kind == Addresses {
			h.Addresses = append(h.Addresses, e.Addr)
		} else if e.Protocol != 0 {
			h.Ports = append(h.Ports, AddrPort(e))
		}
	}
	slices.SortFunc(h.Addresses, netip.Addr.Compare)
	slices.SortFunc(h.Ports, AddrPort.Compare)
	h.Addresses, h.Ports = slices.Compact(h.Addresses), slices.Compact(h.Ports)
	old := w.before[id]
	h.Addresses, h.Ports, h.Nets = shared(old.Addresses, h.Addresses), shared(old.Ports, h.Ports), shared(old.Nets, h.Nets)
	return h.Set
}

// shared gives the old list if it is equal.
func shared[T comparable](old, list []T) []T {
	if len(list) > 0 && slices.Equal(old, list) {
		return old
	}
	return list
}

// add puts a member into a set that is new and not sorted yet.
func (h *held) add(p *pod, a netip.Addr) {
	if h.Kind == Addresses {
		h.Addresses = append(h.Addresses, a)
	} else {
		h.Ports = append(h.Ports, h.source.named(p, a)...)
	}
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
	for _, h := range w.held {
		switch {
		case !h.source.has(p):
		case h.Kind == Addresses:
			h.addrs.note(a, own)
		default:
			for _, port := range h.source.named(p, a) {
				h.ports.note(port, own)
			}
		}
	}
}

// settle makes the members of sets what was noted.
func (w *world) settle() {
	for _, h := range w.held {
		h.Addresses = h.addrs.applied(h.Addresses, netip.Addr.Compare)
		h.Ports = h.ports.applied(h.Ports, AddrPort.Compare)
	}
}

// delta is whether members are in a set or not, as noted last.
type delta[T comparable] map[T]bool

func (d *delta[T]) note(member T, in bool) {
	if *d == nil {
		*d = delta[T]{}
	}
	(*d)[member] = in
}

// applied gives a sorted list with what was noted, and forgets that. A list that
// stays equal stays the same in memory.
func (d *delta[T]) applied(list []T, compare func(a, b T) int) []T {
	if len(*d) > manyChanges {
		return d.merged(list, compare)
	}
	out, own := list, false
	for member, in := range *d {
		i, found := slices.BinarySearchFunc(out, member, compare)
		if found == in {
			continue
		}
		if !own {
			out, own = slices.Clone(out), true
		}
		if in {
			out = slices.Insert(out, i, member)
		} else {
			out = slices.Delete(out, i, i+1)
		}
	}
	if *d = nil; len(out) == 0 {
		return nil
	}
	return out
}

// manyChanges is from how many changes on sorting anew is less work than moving
// members for each.
const manyChanges = 64

func (d *delta[T]) merged(list []T, compare func(a, b T) int) []T {
	changes := *d
	*d = nil
	var out []T
	for _, member := range list {
		if in, noted := changes[member]; !noted || in {
			out = append(out, member)
			delete(changes, member)
		}
	}
	for member, in := range changes {
		if in {
			out = append(out, member)
		}
	}
	if slices.SortFunc(out, compare); slices.Equal(out, list) {
		return list
	}
	return out
}
