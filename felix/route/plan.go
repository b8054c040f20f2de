package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/internal/nl"
)

type verb uint8

const (
	add       verb = iota // there must be nothing of anybody's in its place
	overwrite             // we had written it, somebody took it away or replaced it
	change
	remove
	evict // somebody else's
)

// op is one request. route is the one to write, or the one to delete; it belongs
// to the State or to the table.
type op struct {
	verb  verb
	route *felix.Route         // evict: nil
	other *felix.ExternalRoute // evict
}

func (o op) encode(b *nl.Batch) {
	switch o.verb {
	case add:
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(m []byte) []byte { return appendRoute(m, *o.route) })
	case overwrite, change:
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, func(m []byte) []byte { return appendRoute(m, *o.route) })
	case remove:
		b.Add(unix.RTM_DELROUTE, 0, func(m []byte) []byte { return appendDelete(m, keyOf(*o.route)) })
	case evict:
		b.Add(unix.RTM_DELROUTE, 0, func(m []byte) []byte { return appendEvict(m, *o.other) })
	}
}

func (o op) String() string {
	switch o.verb {
	case add, overwrite:
		return "add route " + o.route.String()
	case change:
		return "change route " + o.route.String()
	case evict:
		return "remove route of others " + o.other.String()
	default:
		return "delete route " + o.route.String()
	}
}

type difference struct{ add, change, remove []op }

// plan compares the kernel's routes with the wanted ones, which are sorted.
func plan(t *table, want []felix.Route, prune bool) difference {
	var d difference
	if t.exact != nil && prune {
		d = walk(t, t.exact, want)
	} else {
		d = look(t, want, prune)
	}
	d.add, d.remove = order(d.add), order(d.remove)
	return d
}

// look compares each wanted route with what the table has under its key.
func look(t *table, want []felix.Route, prune bool) difference {
	var d difference
	found := 0
	if t.present == 0 {
		d.add = make([]op, 0, len(want))
		t.expect(len(want))
	}
	for i := range want {
		w := &want[i]
		k := keyOf(*w)
		have, ok := t.get(k)
		switch {
		case ok && same(have, *w):
			found++
		case ok:
			found++
			d.change = append(d.change, op{verb: change, route: w})
		default:
			d.add = append(d.add, op{verb: addVerb(t, k), route: w})
		}
	}
	if prune && found < t.present {
		d.remove = superfluous(t, want)
	}
	return d
}

func addVerb(t *table, k key) verb {
	if t.entries[k].written {
		return overwrite
	}
	return add
}

// walk compares two sorted lists of routes side by side.
func walk(t *table, have, want []felix.Route) difference {
	var d difference
	for len(have) > 0 || len(want) > 0 {
		switch {
		case len(have) > 0 && len(want) > 0 && have[0].Prefix == want[0].Prefix && have[0].Metric == want[0].Metric:
			if !same(have[0], want[0]) {
				d.change = append(d.change, op{verb: change, route: &want[0]})
			}
			have, want = have[1:], want[1:]
		case len(want) == 0 || len(have) > 0 && have[0].Compare(want[0]) < 0:
			d.remove = append(d.remove, op{verb: remove, route: &have[0]})
			have = have[1:]
		default:
			d.add = append(d.add, op{verb: addVerb(t, keyOf(want[0])), route: &want[0]})
			want = want[1:]
		}
	}
	return d
}

func superfluous(t *table, want []felix.Route) []op {
	wanted := make(map[key]struct{}, len(want))
	for _, w := range want {
		wanted[keyOf(w)] = struct{}{}
	}
	var ops []op
	for k, e := range t.entries {
		if _, ok := wanted[k]; !ok && e.present {
			r := e.of(k)
			ops = append(ops, op{verb: remove, route: &r})
		}
	}
	slices.SortFunc(ops, func(a, b op) int { return a.route.Compare(*b.route) })
	return ops
}

// order puts longer prefixes first, so that a pod's route is there before the
// aggregate that would swallow its packets, and within a length strides by next
// hop: writing in ascending order of prefix costs the kernel 1.7 times more.
func order(ops []op) []op {
	if len(ops) < 2 {
		return ops
	}
	var counts [129]int
	for _, o := range ops {
		counts[o.route.Prefix.Bits()]++
	}
	if counts[ops[0].route.Prefix.Bits()] == len(ops) {
		return stride(ops)
	}
	var lengths [129][]op
	out := make([]op, len(ops))
	at := 0
	for bits := len(counts) - 1; bits >= 0; bits-- {
		lengths[bits] = out[at : at : at+counts[bits]]
		at += counts[bits]
	}
	for _, o := range ops {
		bits := o.route.Prefix.Bits()
		lengths[bits] = append(lengths[bits], o)
	}
	for _, same := range lengths {
		copy(same, stride(same))
	}
	return out
}

// strideAbove is the count from which the order is worth its price.
const strideAbove = 256

// group is a first next hop.
type group struct {
	gateway netip.Addr
	link    int
}

func groupOf(o op) group {
	if len(o.route.NextHops) == 0 {
		return group{}
	}
	return group{o.route.NextHops[0].Gateway, o.route.NextHops[0].Link}
}

// stride deals out ops by way: one of each, and again one of each.
func stride(ops []op) []op {
	if len(ops) < strideAbove {
		return ops
	}
	// Chains of ops of the same way, in their order: two arrays, however many ways
	// there are.
	index := map[group]int{}
	var heads, tails []int32
	next := make([]int32, len(ops))
	for i, o := range ops {
		next[i] = -1
		w := groupOf(o)
		g, ok := index[w]
		if !ok {
			index[w] = len(heads)
			heads, tails = append(heads, int32(i)), append(tails, int32(i))
			continue
		}
		next[tails[g]], tails[g] = int32(i), int32(i)
	}
	out := make([]op, 0, len(ops))
	for len(heads) > 0 {
		left := heads[:0]
		for _, h := range heads {
			out = append(out, ops[h])
			if next[h] >= 0 {
				left = append(left, next[h])
			}
		}
		heads = left
	}
	return out
}

// Refused says which routes the kernel would not take. Every other route is as
// the State wants it.
type Refused struct {
	Prefixes []netip.Prefix
	errs     []error // the first refusalsShown, in full
}

const refusalsShown = 20

// Error lists the refusals with the kernel's reasons.
func (r *Refused) Error() string {
	text := errors.Join(r.errs...).Error()
	if more := len(r.Prefixes) - len(r.errs); more > 0 {
		text += fmt.Sprintf("\nand %d more routes", more)
	}
	return text
}

// Unwrap gives the kernel's reasons.
func (r *Refused) Unwrap() []error { return r.errs }

func (r *Refused) add(o op, err error) {
	if o.verb != evict { // a State's route may well be there in spite of it
		r.Prefixes = append(r.Prefixes, o.route.Prefix)
	}
	if len(r.errs) == refusalsShown {
		return
	}
	if o.verb == add && errors.Is(err, unix.EEXIST) {
		err = fmt.Errorf("%w: somebody else has a route with this prefix and metric", err)
	}
	r.errs = append(r.errs, fmt.Errorf("%s: %w", o, err))
}

// err is nil without a refusal.
func (r *Refused) err() error {
	if len(r.Prefixes) == 0 {
		return nil
	}
	return r
}
