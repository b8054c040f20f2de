package policyrelay

import (
	"maps"
	"slices"
	"time"

	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/felix/policyrelay/relayrpc"
	"github.com/muslin-net/muslin/pkg/model"
)

// View is what an agent has of a relay. It is a value: nobody changes it.
type View struct {
	newest received // what it has of a relay
	// Known are the needs whose pods Pods has. Not nil.
	Known map[policy.Need]bool
	Pods  model.Sorted[*model.PolicyPod] // of other nodes
	// Refused are needs that the relay cannot read; they are not known.
	Refused []policy.Need
	// Answered: a relay has given all that was needed since Run began. Before that the View is what was kept on disk,
	// which may be some seconds older than what the kernel has.
	Answered bool
	// Lost is since when no relay has answered; zero: one does. Err is why.
	Lost time.Time
	Err  error
}

// Union is the pods of a node with those that a relay gave it, kept in work that follows
// what changed of the two. The zero value is empty.
type Union struct {
	own, relayed, all model.Sorted[*model.PolicyPod]
}

// Of gives all pods of two lists; of those that are in both, the node's own.
func (u *Union) Of(own, relayed model.Sorted[*model.PolicyPod]) model.Sorted[*model.PolicyPod] {
	var put, drop []*model.PolicyPod
	look := func(was, is **model.PolicyPod) {
		if was != nil && is != nil && *was == *is {
			return
		}
		key := is
		if key == nil {
			key = was
		}
		if p, here := own.Get(*key); here {
			put = append(put, p)
		} else if p, there := relayed.Get(*key); there {
			put = append(put, p)
		} else {
			drop = append(drop, *key)
		}
	}
	for was, is := range own.Since(u.own) {
		look(was, is)
	}
	for was, is := range relayed.Since(u.relayed) {
		look(was, is)
	}
	u.own, u.relayed, u.all = own, relayed, u.all.With(put, drop)
	return u.all
}

// receiver makes a View of Responses.
type receiver struct {
	node    model.NodeName
	view    View
	members map[podKey]summed
	staged  map[podKey]*member // nil: is to go
	sent    []policy.Need      // the needs of the revision that was sent last
	number  uint64             // that revision

	stream       uint64 // how many there were
	acknowledged uint64 // of this one
}

// received is the number of a Response that is to be acknowledged, and which of an agent's
// streams it is of.
type received struct{ stream, number uint64 }

// summed is a pod as it came.
type summed struct {
	*member
	sum digest
}

func newReceiver(node model.NodeName) *receiver {
	return &receiver{node: node, view: View{Known: map[policy.Need]bool{}}, members: map[podKey]summed{}, staged: map[podKey]*member{}}
}

// begin is a new stream: what an earlier one did not complete is forgotten.
func (r *receiver) begin() {
	clear(r.staged)
	r.stream++
	r.acknowledged = 0
}

// need gives the Request for other needs. What is not needed any more is not known from
// here on: the relay stops to say what changes of it.
func (r *receiver) need(list []policy.Need) *relayrpc.Request {
	r.sent = list
	r.number++
	known := map[policy.Need]bool{}
	out := &relayrpc.Request{Node: string(r.node), Revision: r.number}
	for _, n := range list {
		if out.Needs = append(out.Needs, &relayrpc.Need{Selector: n.Selector, Port: n.Port}); r.view.Known[n] {
			known[n] = true
		}
	}
	r.view.Known = known
	return out
}

// digests gives the sum of each bucket of what is there.
func (r *receiver) digests() [][]byte {
	var sums [buckets]digest
	for k, m := range r.members {
		sums[k.bucket()] = sums[k.bucket()].plus(m.sum)
	}
	var out [][]byte
	for _, d := range sums {
		out = append(out, d.bytes())
	}
	return out
}

// receive takes a Response in, and reports whether the view is another.
func (r *receiver) receive(in *relayrpc.Response) (bool, error) {
	put, err := decode(in)
	if err != nil {
		return false, err
	}
	for k := range r.members {
		if in.Reset_&(1<<k.bucket()) != 0 {
			r.staged[k] = nil
		}
	}
	for _, text := range in.Drop {
		r.staged[keyFrom(text)] = nil
	}
	for _, m := range put {
		r.staged[keyOf(&m.PolicyPod)] = m
	}
	if !in.Complete {
		return false, nil
	}
	return r.commit(in), nil
}

// commit has what was received count.
func (r *receiver) commit(in *relayrpc.Response) bool {
	var here []*model.PolicyPod
	var gone []*model.PolicyPod
	for k, m := range r.staged {
		if m == nil {
			if _, had := r.members[k]; had {
				gone = append(gone, &model.PolicyPod{Namespace: k.namespace, Name: k.name})
				delete(r.members, k)
			}
			continue
		}
		if sum := sumOf(m); sum != r.members[k].sum {
			r.members[k] = summed{m, sum}
			if m.Node == r.node { // the node knows its own pods better
				gone = append(gone, &m.PolicyPod)
			} else {
				here = append(here, m.on(r.node))
			}
		}
	}
	clear(r.staged)
	known := r.known(in)
	next := r.view
	next.Lost, next.Err = time.Time{}, nil
	next.Pods = next.Pods.With(here, gone)
	next.Answered = next.Answered || in.Revision == r.number
	if in.Number != 0 {
		next.newest = received{r.stream, in.Number}
	}
	same := in.Number == 0 && len(here)+len(gone) == 0 && maps.Equal(known, next.Known) && r.view.Lost.IsZero() && next.Answered == r.view.Answered
	if !maps.Equal(known, next.Known) {
		next.Known = known
	}
	r.view = next
	return !same
}

// known are the needs that a complete Response answers: those of its revision, or if
// newer ones have been sent meanwhile, what both have.
func (r *receiver) known(in *relayrpc.Response) map[policy.Need]bool {
	out := map[policy.Need]bool{}
	r.view.Refused = nil
	for _, n := range in.Refused {
		r.view.Refused = append(r.view.Refused, policy.Need{Selector: n.Selector, Port: n.Port})
	}
	for _, n := range r.sent {
		if (in.Revision == r.number || r.view.Known[n]) && !slices.Contains(r.view.Refused, n) {
			out[n] = true
		}
	}
	return out
}
