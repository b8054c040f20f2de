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
)

// op is one request. route is the one to write, or the one to delete.
type op struct {
	verb  verb
	route felix.Route
}

func (o op) encode(b *nl.Batch) {
	switch o.verb {
	case add:
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, func(m []byte) []byte { return appendRoute(m, o.route) })
	case overwrite, change:
		b.Add(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, func(m []byte) []byte { return appendRoute(m, o.route) })
	case remove:
		b.Add(unix.RTM_DELROUTE, 0, func(m []byte) []byte { return appendDelete(m, keyOf(o.route)) })
	}
}

func (o op) String() string {
	switch o.verb {
	case add, overwrite:
		return "add route " + o.route.String()
	case change:
		return "change route " + o.route.String()
	default:
		return "delete route " + o.route.String()
	}
}

type difference struct{ add, change, remove []op }

// plan compares the kernel's routes with the wanted ones. had reports whether
// this process had written a route under a key.
func plan(kernel map[key]felix.Route, want []felix.Route, prune bool, had func(key) bool) difference {
	var d difference
	found := 0
	for _, w := range want {
		k := keyOf(w)
		have, ok := kernel[k]
		switch {
		case ok && same(have, w):
			found++
		case ok:
			found++
			d.change = append(d.change, op{change, w})
		case had(k):
			d.add = append(d.add, op{overwrite, w})
		default:
			d.add = append(d.add, op{add, w})
		}
	}
	if prune && found < len(kernel) {
		d.remove = superfluous(kernel, want)
	}
	order(d.add)
	return d
}

func superfluous(kernel map[key]felix.Route, want []felix.Route) []op {
	wanted := make(map[key]struct{}, len(want))
	for _, w := range want {
		wanted[keyOf(w)] = struct{}{}
	}
	var ops []op
	for k, have := range kernel {
		if _, ok := wanted[k]; !ok {
			ops = append(ops, op{remove, have})
		}
	}
	slices.SortFunc(ops, func(a, b op) int { return a.route.Compare(b.route) })
	order(ops)
	return ops
}

// order puts longer prefixes first, so that a pod's route is there before the
// aggregate that would swallow its packets, and within a length strides by next
// hop: writing in ascending order of prefix costs the kernel 1.7 times more.
func order(ops []op) {
	slices.SortStableFunc(ops, func(a, b op) int { return b.route.Prefix.Bits() - a.route.Prefix.Bits() })
	for from := 0; from < len(ops); {
		to := from
		for to < len(ops) && ops[to].route.Prefix.Bits() == ops[from].route.Prefix.Bits() {
			to++
		}
		stride(ops[from:to])
		from = to
	}
}

// strideAbove is the count from which the order is worth its price.
const strideAbove = 256

func stride(ops []op) {
	if len(ops) < strideAbove {
		return
	}
	index := map[felix.NextHop]int{}
	var groups [][]op
	for _, o := range ops {
		var h felix.NextHop
		if len(o.route.NextHops) > 0 {
			h = o.route.NextHops[0]
		}
		i, ok := index[h]
		if !ok {
			i = len(groups)
			index[h] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], o)
	}
	out := ops[:0]
	for n := 0; len(out) < len(ops); n++ {
		for _, g := range groups {
			if n < len(g) {
				out = append(out, g[n])
			}
		}
	}
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
	r.Prefixes = append(r.Prefixes, o.route.Prefix)
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
