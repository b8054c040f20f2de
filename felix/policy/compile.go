package policy

import (
	"cmp"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Input is what a Program is decided from.
type Input struct {
	// Self is this node: a pod of it that has no endpoint here has no address, whatever
	// the API says. Empty: no node in particular.
	Self            model.NodeName
	View            model.PolicyView
	Endpoints       []model.Endpoint // pods attached to this node
	EndpointsSynced bool             // Endpoints are all there are
}

// Compile decides what the kernel has to know of policy. Equal inputs give equal
// Programs and problems.
//
// An endpoint whose pod or namespace is not known is left out of the Program,
// and so is closed, as long as there is any policy at all.
func Compile(in Input) (Program, []model.Problem) { return new(Engine).Compile(in) }

// Engine is Compile with a memory: what it gives is the same, and takes work in
// proportion to the pods and endpoints that changed since the last call, beside one
// look at each. What did not change of a Program is shared with the last one: a
// Set that is equal has the same members in memory. The zero value remembers
// nothing. It is for one goroutine.
type Engine struct {
	world    *world
	revision uint64
	self     model.NodeName
}

// Compile is the function of that name. What View.Revision stands for is looked at
// anew only when that changes, or is 0.
func (e *Engine) Compile(in Input) (Program, []model.Problem) {
	if !in.View.Synced || !in.EndpointsSynced {
		return Program{}, nil
	}
	if e.world == nil || in.View.Revision == 0 || in.View.Revision != e.revision || in.Self != e.self {
		before := e.world
		e.world, e.revision, e.self = newWorld(in), in.View.Revision, in.Self
		if before != nil {
			e.world.before = before.sets()
			defer func() { e.world.before = nil }()
		}
	}
	return e.world.compile(in)
}

// world is a PolicyView with the questions that every part of the decision asks
// answered once. All but its pods stays as it is.
type world struct {
	self     model.NodeName
	view     model.PolicyView // without Pods
	tiers    []tier
	netsets  []netset
	problems []model.Problem // of what stays

	pods
	requested map[model.Selector]*choice
	choices   map[string]*choice  // the same, by the text of a selector
	evaluated map[*group]Endpoint // what the endpoints of a group get
	lists     map[string]ChainID  // by the policies of a chain, see listKey
	chains    map[ChainID]Chain
	sources   map[SetID]*source
	held      map[SetID]*held // members of those that the last Program had
	before    map[SetID]Set   // those of another world
}

func newWorld(in Input) *world {
	w := &world{
		self: in.Self, view: in.View, pods: newPods(),
		requested: map[model.Selector]*choice{}, choices: map[string]*choice{}, evaluated: map[*group]Endpoint{},
		lists: map[string]ChainID{}, chains: map[ChainID]Chain{}, sources: map[SetID]*source{}, held: map[SetID]*held{},
	}
	w.view.Pods = nil
	if len(in.View.Policies) > 0 {
		w.tiers = w.sortTiers()
		w.findNetworkSets()
	}
	for i := range in.View.Policies {
		p := &in.View.Policies[i]
		for j := range p.IngressRules {
			w.oneFamily(p.Object, "spec.ingress", &p.IngressRules[j])
		}
		for j := range p.EgressRules {
			w.oneFamily(p.Object, "spec.egress", &p.EgressRules[j])
		}
	}
	return w
}

// sets gives the sets of the last Program.
func (w *world) sets() map[SetID]Set {
	out := make(map[SetID]Set, len(w.held))
	for id, h := range w.held {
		out[id] = h.Set
	}
	return out
}

func (w *world) compile(in Input) (Program, []model.Problem) {
	out := Program{
		Complete: true, Endpoints: make(map[string]Endpoint, len(in.Endpoints)),
		Chains: map[ChainID]Chain{}, Sets: map[SetID]Set{},
	}
	if len(w.view.Policies) == 0 {
		for _, e := range in.Endpoints {
			out.Endpoints[e.HostInterface] = Endpoint{}
		}
		return out, nil
	}
	w.update(in.View.Pods, in.Endpoints)
	for _, e := range in.Endpoints {
		if p := w.byKey[podKey{e.Namespace, e.Pod}]; p.known && p.group != nil {
			out.Endpoints[e.HostInterface] = w.endpoint(p.group)
		} else {
			out.Unknown = true
		}
	}
	for _, e := range out.Endpoints {
		w.follow(&out, e.Ingress)
		w.follow(&out, e.Egress)
	}
	for id := range w.held {
		if _, used := out.Sets[id]; !used {
			delete(w.held, id)
		}
	}
	problems := slices.Concat(w.problems, w.claimedTwice())
	slices.SortFunc(problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return out, slices.Compact(problems)
}

// follow adds a chain with those that it leads to, and their sets. A tier without
// a Pass hides those behind it.
func (w *world) follow(out *Program, id ChainID) {
	if _, done := out.Chains[id]; done || id == "" {
		return
	}
	chain := w.chains[id]
	out.Chains[id] = chain
	for _, r := range chain.Rules {
		w.follow(out, r.Next)
		for _, ids := range [][]SetID{r.Source.In, r.Source.NotIn, r.Destination.In, r.Destination.NotIn} {
			for _, set := range ids {
				if _, done := out.Sets[set]; !done {
					out.Sets[set] = w.hold(set)
				}
			}
		}
	}
}

func (w *world) problem(object model.Ref, field, reason, message string) {
	w.problems = append(w.problems, model.Problem{Object: object, Field: field, Reason: reason, Message: message})
}
