package route

import "github.com/muslin-net/muslin/felix"

// table is what we know of the kernel's routes with our protocol. Each step of
// the work on it is in proportion to what changes, whatever its size.
type table struct {
	entries map[key]entry
	present int         // entries that are in the kernel
	overs   map[int]int // present routes by link
	// exact are the routes of the last Apply as long as the kernel has these
	// and no others; nil when that is not known.
	exact []felix.Route
}

// entry is a route that is in the kernel (present), or that was: written says
// that this process put it there and did not take it away, so that it may be
// put back even over what somebody else left in its place.
type entry struct {
	group            *felix.NextHopGroup
	present, written bool
}

func newTable(size int) *table {
	return &table{entries: make(map[key]entry, size), overs: map[int]int{}}
}

// of is the route under a key that has that entry.
func (e entry) of(k key) felix.Route {
	return felix.Route{Prefix: k.prefix, Metric: k.metric, NextHopGroup: e.group}
}

// expect makes room for so many routes in a table that has none.
func (t *table) expect(size int) {
	if len(t.entries) == 0 {
		t.entries = make(map[key]entry, size)
	}
}

// get returns the route that the kernel has under a key.
func (t *table) get(k key) (felix.Route, bool) {
	e := t.entries[k]
	return e.of(k), e.present
}

// put notes that the kernel has a route, which we wrote when written is true.
func (t *table) put(r felix.Route, written bool) {
	k := keyOf(r)
	e := t.entries[k]
	t.count(e, -1)
	e = entry{group: r.NextHopGroup, present: true, written: e.written || written}
	t.count(e, 1)
	t.entries[k] = e
}

// lose notes that the kernel has a route no more, and not by our doing.
func (t *table) lose(k key) {
	e, ok := t.entries[k]
	if !ok {
		return
	}
	t.count(e, -1)
	if e.present = false; e.written {
		t.entries[k] = e
	} else {
		delete(t.entries, k)
	}
	t.exact = nil
}

// forget notes that a route is gone and that we do not want it back.
func (t *table) forget(k key) {
	t.count(t.entries[k], -1)
	delete(t.entries, k)
}

func (t *table) count(e entry, by int) {
	if !e.present {
		return
	}
	t.present += by
	for _, h := range e.group.NextHops {
		t.overs[h.Link] += by
	}
}

// over lists the routes over a link.
func (t *table) over(link int) []key {
	if t.overs[link] == 0 {
		return nil
	}
	var out []key
	for k, e := range t.entries {
		if !e.present {
			continue
		}
		for _, h := range e.group.NextHops {
			if h.Link == link {
				out = append(out, k)
				break
			}
		}
	}
	return out
}

// adopt takes a fresh reading of the kernel, and what t knew of who wrote what.
func (t *table) adopt(read []felix.Route) *table {
	out := newTable(max(len(read), len(t.entries)))
	for _, r := range read {
		out.put(r, t.entries[keyOf(r)].written)
	}
	for k, e := range t.entries {
		if _, there := out.entries[k]; !there && e.written {
			out.entries[k] = entry{group: e.group, written: true}
		}
	}
	return out
}
