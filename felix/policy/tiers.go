package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// tier is a tier with its policies in the order they are looked at.
type tier struct {
	model.Tier
	policies []*policy
}

// policy is one that was read, with what its rules became.
type policy struct {
	*model.Policy
	tier      model.Tier
	missing   bool   // no such tier
	number    int    // unique among all that were ever read
	namespace string // that everything it selects is in; empty: no one
	problems  []model.Problem

	rules [2][]Rule
	needs [2][]Need
	built [2]bool
}

// policies are those of the last view.
type policies struct {
	seen     model.Sorted[*model.Policy]
	byObject map[model.Ref]*policy
	within   map[string]map[*policy]bool // by namespace
	faulty   map[*policy]bool            // that have problems
	tierOf   map[string]model.Tier
	subjects map[*group]*subject
	number   int // of the last one
	round    int // how often a Program was made
	read     bool
}

// subject is what policies judge, pods of a group or a host endpoint, with the policies that
// select it, in the order of evaluation. They are kept right as policies come and go.
type subject struct {
	policies []*policy
	made     bool // what follows is of these policies
	Endpoint      // of pods
	Host          // of a host endpoint
	round    int  // when it was asked for last
}

// direction is that of the packets a chain judges, seen from the endpoint.
type direction int

const (
	ingress direction = iota
	egress
)

func (p *policy) selects(g *group) bool {
	return p.Selector == nil || (p.namespace == "" || p.namespace == g.labels[model.LabelNamespace]) && p.Selector.Matches(g.labels)
}

// compare gives the order of evaluation. Policies of a tier that does not exist are looked
// at after all others and end in a drop, as in Calico: they must not open what they were
// written to close.
func (p *policy) compare(o *policy) int {
	if p.missing != o.missing {
		if p.missing {
			return 1
		}
		return -1
	}
	if c := p.tier.Compare(o.tier); c != 0 {
		return c
	}
	return p.CompareOrder(o.Policy)
}

// readPolicies takes over tiers and policies, at the cost of the policies that are others now.
func (w *world) readPolicies(view model.PolicyView) {
	if tiers := tiersOf(view.Tiers); !w.read || !maps.Equal(tiers, w.tierOf) {
		w.policies = policies{
			byObject: map[model.Ref]*policy{}, within: map[string]map[*policy]bool{}, faulty: map[*policy]bool{},
			tierOf: tiers, subjects: map[*group]*subject{}, number: w.number, round: w.round, read: true,
		}
		w.restless = true // nobody remembers which lists of policies there were
	}
	for was, is := range view.Policies.Since(w.seen) {
		if was != nil && is != nil && *was == *is {
			continue
		}
		var had []*subject
		if was != nil {
			had = w.removePolicy(w.byObject[(*was).Object])
		}
		if is == nil {
			continue
		}
		p := w.addPolicy(*is)
		if was == nil || !sameSelector((*was).Selector, p.Selector) {
			had = w.subjectsOf(p)
		}
		for _, s := range had {
			s.put(p)
		}
	}
	w.seen = view.Policies
}

func sameSelector(a, b model.Selector) bool {
	return a != nil && b != nil && a.String() == b.String()
}

// subjectsOf gives the subjects that a policy selects.
func (w *world) subjectsOf(p *policy) (out []*subject) {
	for g, s := range w.subjects {
		if p.selects(g) {
			out = append(out, s)
		}
	}
	return out
}

// put adds a policy that selects a subject.
func (s *subject) put(p *policy) {
	i, _ := slices.BinarySearchFunc(s.policies, p, (*policy).compare)
	s.policies, s.made = slices.Insert(s.policies, i, p), false
}

// tiersOf gives the tiers that exist by name. Those that always do no object changes.
func tiersOf(list []model.Tier) map[string]model.Tier {
	out := map[string]model.Tier{}
	for _, t := range slices.Concat(list, model.BuiltinTiers()) {
		out[t.Name] = t
	}
	return out
}

func (w *world) addPolicy(m *model.Policy) *policy {
	w.number++
	p := &policy{Policy: m, number: w.number}
	if tier, ok := w.tierOf[m.Tier]; ok {
		p.tier = tier
	} else {
		p.missing, p.tier = true, model.Tier{Name: m.Tier, Order: model.NoOrder()}
		p.problems = []model.Problem{{Object: m.Object, Field: "spec.tier", Reason: "TierNotFound",
			Message: "tier " + strconv.Quote(m.Tier) + " does not exist: the policy is looked at after all others, and what none of its tier allows is dropped"}}
	}
	p.problems = slices.Concat(p.problems, oneFamily(m.Object, "spec.ingress", m.IngressRules), oneFamily(m.Object, "spec.egress", m.EgressRules))
	if len(p.problems) > 0 {
		w.faulty[p] = true
	}
	p.namespace = namespaceOf(m.Selector)
	if w.within[p.namespace] == nil {
		w.within[p.namespace] = map[*policy]bool{}
	}
	w.byObject[m.Object], w.within[p.namespace][p] = p, true
	return p
}

// removePolicy gives those that it selected.
func (w *world) removePolicy(p *policy) (had []*subject) {
	delete(w.byObject, p.Object)
	delete(w.faulty, p)
	if delete(w.within[p.namespace], p); len(w.within[p.namespace]) == 0 {
		delete(w.within, p.namespace)
	}
	for _, s := range w.subjects {
		if i := slices.Index(s.policies, p); i >= 0 {
			s.policies, s.made = slices.Delete(s.policies, i, i+1), false
			had = append(had, s)
		}
	}
	return had
}

// selecting gives the policies that select a group, in order.
func (w *world) selecting(g *group) []*policy {
	var out []*policy
	namespaces := []string{"", g.labels[model.LabelNamespace]}
	for _, ns := range slices.Compact(namespaces) {
		for p := range w.within[ns] {
			if p.selects(g) {
				out = append(out, p)
			}
		}
	}
	slices.SortFunc(out, (*policy).compare)
	return out
}

// subject gives the policies of a group, and what they became.
func (w *world) subject(g *group) *subject {
	s := w.subjects[g]
	if s == nil {
		s = &subject{policies: w.selecting(g)}
		w.subjects[g] = s
	}
	s.round = w.round
	return s
}

// endpoint gives the chains of the endpoints of a group.
func (w *world) endpoint(g *group) Endpoint {
	s := w.subject(g)
	if !s.made {
		s.Endpoint, s.made = Endpoint{Ingress: w.chain(s, ingress), Egress: w.chain(s, egress)}, true
	}
	return s.Endpoint
}

// counted gives the tiers that count at a hook: those that have a policy for it.
func (s *subject) counted(h hook, d direction) []tier {
	var out []tier
	for _, p := range s.policies {
		if !p.evaluatesAt(h, d) {
			continue
		}
		if n := len(out); n == 0 || out[n-1].Name != p.tier.Name {
			out = append(out, tier{Tier: p.tier})
		}
		last := &out[len(out)-1]
		last.policies = append(last.policies, p)
	}
	return out
}

// chain gives the chain of the first tier that counts. None: "".
func (w *world) chain(s *subject, d direction) ChainID {
	counted := s.counted(normal, d)
	var next ChainID
	for i := len(counted) - 1; i >= 0; i-- {
		key := listKey(counted[i:], d)
		id, ok := w.lists[key]
		if !ok {
			// A pod's namespace allows what no tier decides.
			id = w.tierChain(counted[i], prefixes[normal][d], d, next, Rule{Verdict: Allow})
			w.lists[key] = id
		}
		next = id
	}
	return next
}

// chainID names the chain of a tier. A policy without rules of the direction selects, and adds nothing:
// all that deny by default have one chain.
func (t tier) chainID(prefix string, d direction, next ChainID, undecided Verdict) ChainID {
	var b strings.Builder
	b.WriteString(t.Name + "\n" + string(next) + "\n" + undecided.String())
	for _, p := range t.policies {
		if len(p.directed(d)) > 0 {
			b.WriteString("\n" + p.Object.String())
		}
	}
	return ChainID(prefix + hash(b.String()))
}

// directed gives the rules of a direction.
func (p *policy) directed(d direction) []model.PolicyRule {
	if d == egress {
		return p.EgressRules
	}
	return p.IngressRules
}

// listKey tells apart what of policies was read when, too.
func listKey(tiers []tier, d direction) string {
	var b strings.Builder
	b.WriteString(strconv.Itoa(int(d)))
	for _, t := range tiers {
		b.WriteByte(';')
		for _, p := range t.policies {
			b.WriteString(strconv.Itoa(p.number) + ",")
		}
	}
	return b.String()
}
