package policy

import (
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

// policy is one of a tier, with what its rules became.
type policy struct {
	*model.Policy
	number int // unique; in the order of evaluation
	rules  [2][]Rule
	needs  [2][]Need
	built  [2]bool
}

// direction is that of the packets a chain judges, seen from the endpoint.
type direction int

const (
	ingress direction = iota
	egress
)

// decides reports whether a policy is for packets of pods in that direction.
func (p *policy) decides(d direction) bool { return p.evaluatesAt(normal, d) }

func (p *policy) selects(g *group) bool {
	if p.Selector == nil {
		return true
	}
	if ns, ok := namespaceOf(p.Selector); ok && ns != g.labels[model.LabelNamespace] {
		return false
	}
	return p.Selector.Matches(g.labels)
}

// sortTiers gives the tiers that have policies, in order. Policies of a tier that
// does not exist are looked at after all others and end in a drop, as in Calico:
// they must not open what they were written to close.
func (w *world) sortTiers() []tier {
	tiers := model.BuiltinTiers()
	for _, t := range w.view.Tiers {
		if !model.BuiltinTier(t.Name) {
			tiers = append(tiers, t)
		}
	}
	slices.SortFunc(tiers, model.Tier.Compare)
	of := map[string][]*policy{}
	for i := range w.view.Policies {
		p := &w.view.Policies[i]
		of[p.Tier] = append(of[p.Tier], &policy{Policy: p})
	}
	var out []tier
	for _, t := range tiers {
		if list := of[t.Name]; list != nil {
			out = append(out, tier{t, list})
			delete(of, t.Name)
		}
	}
	var missing []tier
	for name, list := range of {
		missing = append(missing, tier{model.Tier{Name: name, Order: model.NoOrder()}, list})
		for _, p := range list {
			w.problem(p.Object, "spec.tier", "TierNotFound", "tier "+strconv.Quote(name)+" does not exist: the policy is looked at after all others, and what none of its tier allows is dropped")
		}
	}
	slices.SortFunc(missing, func(a, b tier) int { return a.Compare(b.Tier) })
	out = append(out, missing...)
	number := 0
	for _, t := range out {
		slices.SortFunc(t.policies, func(a, b *policy) int { return a.Policy.Compare(b.Policy) })
		for _, p := range t.policies {
			p.number = number
			number++
		}
	}
	return out
}

// endpoint gives the chains of the endpoints of a group.
func (w *world) endpoint(g *group) Endpoint {
	if e, ok := w.evaluated[g]; ok {
		return e
	}
	var selected []tier
	for _, t := range w.tiers {
		var list []*policy
		for _, p := range t.policies {
			if p.selects(g) {
				list = append(list, p)
			}
		}
		selected = append(selected, tier{t.Tier, list})
	}
	e := Endpoint{Ingress: w.chain(selected, ingress), Egress: w.chain(selected, egress)}
	w.evaluated[g] = e
	return e
}

// chain gives the chain of the first tier that counts: of those tiers that have a
// policy of this direction. None: "".
func (w *world) chain(selected []tier, d direction) ChainID {
	var counted []tier
	for _, t := range selected {
		list := slices.DeleteFunc(slices.Clone(t.policies), func(p *policy) bool { return !p.decides(d) })
		if len(list) > 0 {
			counted = append(counted, tier{t.Tier, list})
		}
	}
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
