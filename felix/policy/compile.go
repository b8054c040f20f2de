package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Input is what a Program is decided from.
type Input struct {
	// Self is this node: a pod of it that has no endpoint here has no address, whatever
	// the API says. Empty: no node in particular.
	Self model.NodeName
	View model.PolicyView
	// Known are the Needs whose pods View.Pods has, beside the pods of Self. A rule that
	// needs others is one that cannot be read: it allows nothing. nil: View.Pods are all.
	Known           map[Need]bool
	Endpoints       []model.Endpoint // pods attached to this node
	EndpointsSynced bool             // Endpoints are all there are
	EpochMask       uint32           // see Program.EpochMask

	// Of the node itself, for its host endpoints.
	Interfaces              []Interface
	FailsafeIn, FailsafeOut []model.FailsafePort // never cut, beside what Muslin needs
	VXLANPort               uint16               // UDP; 0: 4789
}

// Interface is one of the node's own, with its addresses.
type Interface struct {
	Name      string
	Addresses []netip.Addr
}

// Compile decides what the kernel has to know of policy. Equal inputs give equal
// Programs and problems.
//
// An endpoint whose pod or namespace is not known, or whose namespace's policies are not,
// is left out of the Program, and so is closed, as long as there is any policy at all.
func Compile(in Input) (Program, []model.Problem) { return new(Engine).Compile(in) }

// Engine is Compile with a memory: what it gives is the same, and takes work in
// proportion to what changed since the last call. What did not change of a Program is
// shared with the last one: a Set that is equal is the same in memory, and so are
// Endpoints and Chains as long as only pods of other nodes come and go. The zero value
// remembers nothing. It is for one goroutine.
type Engine struct {
	world    *world
	revision uint64
}

// Compile is the function of that name. What View.Revision stands for is looked at
// anew only when that changes, or is 0.
func (e *Engine) Compile(in Input) (Program, []model.Problem) {
	if !in.View.Synced || !in.EndpointsSynced {
		return Program{}, nil
	}
	switch {
	case e.world == nil:
		e.world = newWorld(in, Program{})
	case e.world.self != in.Self || in.View.Revision == 0:
		e.world = newWorld(in, e.world.last)
	case in.View.Revision != e.revision || !sameKnown(e.world.known, in.Known):
		e.world.renew(in)
	}
	e.revision = in.View.Revision
	out, problems := e.world.compile(in)
	out.EpochMask = in.EpochMask
	return out, problems
}

// world is a PolicyView with the questions that every part of the decision asks
// answered once. All but its pods and policies stays as it is.
type world struct {
	self        model.NodeName
	known       map[Need]bool
	view        model.PolicyView // without Pods and Policies
	netsets     map[model.Ref]*netset
	netsetsRead int  // how often
	unsure      bool // rules may read otherwise

	pods
	policies
	requested map[model.Selector]*choice
	choices   map[string]*choice // the same, by the text of a selector
	lists     map[string]ChainID // by what was read of the policies of a chain, see listKey
	chains    map[ChainID]Chain
	sources   map[SetID]*source
	rendered  []*policy          // whose rules these are of
	rewritten map[ChainID]bool   // of these, those with other rules than in the last Program
	chained   [2]int             // how often a chain was made since they were forgotten: at first, and by now
	held      map[SetID]*held    // those that the last Program had
	replaced  map[*held]bool     // of these, those that are made of something else
	named     []*held            // of these, ports of pods that no selector chooses
	noted     []*held            // of these, those with changes
	before    model.Sorted[*Set] // of another world

	last     Program // if not stale
	stale    bool    // endpoints, or what they get, changed
	restless bool    // endpoints, or their pods, changed
	reported []model.Problem
	ofHosts  []model.Problem
	hosts    map[string]*group // by the name of a host endpoint: what selectors see of it
	host     hostInput         // that last was made with
}

// newWorld makes a world that has only the last Program of another one.
func newWorld(in Input, last Program) *world {
	w := &world{self: in.Self, known: in.Known, pods: newPods(), choices: map[string]*choice{}, held: map[SetID]*held{}, hosts: map[string]*group{}, netsets: map[model.Ref]*netset{}, replaced: map[*held]bool{}, rewritten: map[ChainID]bool{}, before: last.Sets, last: last, restless: true}
	w.take(in.View)
	w.readNetworkSets(nil)
	w.forget()
	return w
}

// take takes over all of a view but its pods.
func (w *world) take(view model.PolicyView) {
	w.readPolicies(view)
	w.view, w.stale = view, true
	w.view.Pods, w.view.Policies = model.Sorted[*model.PolicyPod]{}, model.Sorted[*model.Policy]{}
}

// forget drops what rules became: it is made anew where it is asked for.
func (w *world) forget() {
	w.requested, w.lists, w.chains = map[model.Selector]*choice{}, map[string]ChainID{}, map[ChainID]Chain{}
	w.sources, w.chained = map[SetID]*source{}, [2]int{}
	for _, p := range w.rendered {
		p.rules, p.needs, p.built = [2][]Rule{}, [2][]Need{}, [2]bool{}
	}
	w.rendered = nil
	for _, s := range w.subjects {
		s.made = false
	}
}

// littleRubbish is how many chains that nobody has any more are never worth to forget.
const littleRubbish = 100

// tidy forgets once most of the chains that were made may be those of policies that were.
func (w *world) tidy() {
	if w.chained[1] > 2*w.chained[0]+littleRubbish {
		w.forget()
	}
}

// built notes that a Program has been made of what the world has, and ends what it did not ask for.
func (w *world) built() {
	if w.chained[0] == 0 {
		w.chained[0] = w.chained[1]
	}
	maps.DeleteFunc(w.subjects, func(_ *group, s *subject) bool { return s.round != w.round })
	w.round++
}

func (w *world) compile(in Input) (Program, []model.Problem) {
	if host := hostOf(in); !reflect.DeepEqual(host, w.host) {
		w.host, w.stale, w.hosts = host, true, map[string]*group{}
	}
	if w.seen.Len() == 0 && !in.View.More {
		out := Program{Complete: true, Endpoints: make(map[string]Endpoint, len(in.Endpoints))}
		for _, e := range in.Endpoints {
			out.Endpoints[e.HostInterface] = Endpoint{}
		}
		used := newUsage()
		problems := w.evaluateHosts(in, &out, used)
		used.fill(&out, w.last)
		w.built()
		out.share(w.last)
		w.last, w.restless = out, true
		return out, problems
	}
	w.update(in.View.Pods, in.Endpoints)
	changed := w.settle()
	if w.stale {
		w.last, w.ofHosts = w.build(in, changed)
	} else if len(changed) > 0 {
		w.last.Sets = w.last.Sets.With(changed, nil)
	}
	if w.stale || w.disputed {
		w.reported = w.report()
	}
	w.stale, w.disputed = false, false
	return w.last, w.reported
}

// report gives all problems, in order.
func (w *world) report() []model.Problem {
	out := slices.Concat(w.claimedTwice(), w.ofHosts)
	for p := range w.faulty {
		out = append(out, p.problems...)
	}
	slices.SortFunc(out, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(out)
}

// build makes a Program anew, of chains and sets that are kept. changed are sets with other members.
func (w *world) build(in Input, changed []*Set) (Program, []model.Problem) {
	w.tidy()
	out := Program{Complete: true, Closed: true}
	settled := !w.restless
	out.Endpoints, out.Unknown = w.endpoints(in.Endpoints)
	if settled = settled && len(w.last.Endpoints) > 0 && same(out.Endpoints, w.last.Endpoints) && w.last.Hosts == nil && len(hostEndpointsOf(w.self, in.View.HostEndpoints)) == 0; settled && w.leadsOn() {
		return w.rewrite(changed), nil
	}
	clear(w.rewritten)
	used := newUsage()
	for _, s := range w.subjects {
		if s.round == w.round {
			w.follow(used, s.Ingress)
			w.follow(used, s.Egress)
		}
	}
	problems := w.evaluateHosts(in, &out, used)
	used.fill(&out, w.last)
	out.Needs = w.needs()
	w.before = model.Sorted[*Set]{}
	for id, h := range w.held {
		if used.sets[id] == nil {
			w.release(h)
		}
	}
	w.forgetChoices()
	w.built()
	out.share(w.last)
	return out, problems
}

// leadsOn reports whether the chains with other rules lead to the chains and sets that they did.
func (w *world) leadsOn() bool {
	for id := range w.rewritten {
		if was, there := w.last.Chains.Get(Chain{ID: id}); there && !maps.Equal(was.names(), w.chains[id].names()) {
			return false
		}
	}
	return true
}

// names gives what the rules of a chain name.
func (c Chain) names() map[string]bool {
	out := map[string]bool{}
	for _, r := range c.Rules {
		out[string(r.Next)] = true
		for _, ids := range [][]SetID{r.Source.In, r.Source.NotIn, r.Destination.In, r.Destination.NotIn} {
			for _, id := range ids {
				out[string(id)] = true
			}
		}
	}
	return out
}

// rewrite gives the last Program with other rules in chains, and other members in sets.
func (w *world) rewrite(changed []*Set) Program {
	out := w.last
	var other []Chain
	for id := range w.rewritten {
		if _, there := out.Chains.Get(Chain{ID: id}); there {
			other = append(other, w.chains[id])
		}
	}
	out.Chains = out.Chains.With(other, nil)
	clear(w.rewritten)
	if len(changed) > 0 {
		out.Sets = out.Sets.With(changed, nil)
	}
	out.Needs = w.needs()
	w.built()
	return out
}

// endpoints gives the chains of each pod here, and whether one is not known. Those of pods that are to
// come are made with them, so that a pod finds its own in the kernel. Where no pod has become
// another, each list of policies is looked at, and not each pod.
func (w *world) endpoints(ends []model.Endpoint) (out map[string]Endpoint, unknown bool) {
	for g, s := range w.subjects {
		switch was := s.Endpoint; {
		case w.restless || len(g.pods) == 0: // a host endpoint has none
		case s.made:
			s.round = w.round
		case w.endpoint(g) != was:
			w.restless = true
		}
	}
	if !w.restless {
		return w.last.Endpoints, w.last.Unknown
	}
	w.restless, out = false, make(map[string]Endpoint, len(ends))
	for _, e := range ends {
		if p := w.byKey[podKey{e.Namespace, e.Pod}]; p.known && p.group != nil && (w.view.Of == nil || w.view.Of[e.Namespace]) {
			out[e.HostInterface] = w.endpoint(p.group)
		} else {
			unknown = true
		}
	}
	for p := range w.coming {
		if p.group != nil {
			w.endpoint(p.group)
		}
	}
	return out, unknown
}

// usage is the chains and sets that endpoints lead to.
type usage struct {
	chains map[ChainID]Chain
	sets   map[SetID]*Set
}

func newUsage() usage { return usage{map[ChainID]Chain{}, map[SetID]*Set{}} }

// fill gives a Program what is used. What another one has too, it shares.
func (u usage) fill(out *Program, last Program) {
	var put, drop []Chain
	for c := range last.Chains.All() {
		if _, still := u.chains[c.ID]; !still {
			drop = append(drop, c)
		}
	}
	for _, c := range u.chains {
		if before, had := last.Chains.Get(c); !had || !before.Same(c) {
			put = append(put, c)
		}
	}
	out.Chains, out.Sets = last.Chains, model.SortedOf(slices.Collect(maps.Values(u.sets)))
	if len(put)+len(drop) > 0 {
		out.Chains = out.Chains.With(put, drop)
	}
}

// follow adds a chain with those that it leads to, and their sets. A tier without
// a Pass hides those behind it.
func (w *world) follow(u usage, id ChainID) {
	if _, done := u.chains[id]; done || id == "" {
		return
	}
	chain := w.chains[id]
	u.chains[id] = chain
	for _, r := range chain.Rules {
		w.follow(u, r.Next)
		for _, ids := range [][]SetID{r.Source.In, r.Source.NotIn, r.Destination.In, r.Destination.NotIn} {
			for _, set := range ids {
				if u.sets[set] == nil {
					u.sets[set] = w.hold(set)
				}
			}
		}
	}
}

// share takes over of another Program what is equal.
func (p *Program) share(o Program) {
	if !o.Complete {
		return
	}
	if maps.Equal(p.Endpoints, o.Endpoints) {
		p.Endpoints = o.Endpoints
	}
	if maps.Equal(p.Hosts, o.Hosts) {
		p.Hosts = o.Hosts
	}
}
