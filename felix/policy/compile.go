package policy

import (
	"cmp"
	"maps"
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
func Compile(in Input) (Program, []model.Problem) {
	if !in.View.Synced || !in.EndpointsSynced {
		return Program{}, nil
	}
	c := newCase(in)
	for _, e := range in.Endpoints {
		if len(in.View.Policies) == 0 {
			c.out.Endpoints[e.HostInterface] = Endpoint{}
			continue
		}
		pod, known := c.pods[podKey{e.Namespace, e.Pod}]
		if !known || pod.group == nil {
			continue
		}
		c.out.Endpoints[e.HostInterface] = c.endpoint(pod.group)
	}
	c.drop()
	slices.SortFunc(c.problems, func(a, b model.Problem) int {
		return cmp.Or(cmp.Compare(a.Object.String(), b.Object.String()), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return c.out, slices.Compact(c.problems)
}

// casefile is an Input with the questions that every part of the decision asks
// answered once.
type casefile struct {
	Input
	out      Program
	tiers    []tier
	pods     map[podKey]*pod
	groups   []*group
	byName   map[string][]*group // by namespace
	netsets  []netset
	asked    map[model.Selector]*choice
	texts    map[string]*choice  // the same, by the text of a selector
	judged   map[*group]Endpoint // what the endpoints of a group get
	lists    map[string]ChainID  // by the policies of a chain, see listKey
	problems []model.Problem
}

func newCase(in Input) *casefile {
	c := &casefile{
		Input: in,
		out: Program{
			Complete: true, Endpoints: map[string]Endpoint{},
			Chains: map[ChainID]Chain{}, Sets: map[SetID]Set{},
		},
		pods: map[podKey]*pod{}, byName: map[string][]*group{}, asked: map[model.Selector]*choice{}, texts: map[string]*choice{}, judged: map[*group]Endpoint{}, lists: map[string]ChainID{},
	}
	if len(in.View.Policies) > 0 {
		c.tiers = c.sortTiers()
		c.findGroups()
		c.findOwners()
		c.findNetworkSets()
	}
	return c
}

func (c *casefile) problem(object model.Ref, field, reason, message string) {
	c.problems = append(c.problems, model.Problem{Object: object, Field: field, Reason: reason, Message: message})
}

// drop takes out chains that no endpoint is led to, and sets that no rule names:
// a tier without a Pass hides those behind it, and a rule may turn out to match
// nothing.
func (c *casefile) drop() {
	chains, sets := map[ChainID]bool{"": true}, map[SetID]bool{}
	var follow func(ChainID)
	follow = func(id ChainID) {
		if chains[id] {
			return
		}
		chains[id] = true
		for _, r := range c.out.Chains[id].Rules {
			follow(r.Next)
			for _, ids := range [][]SetID{r.Source.In, r.Source.NotIn, r.Destination.In, r.Destination.NotIn} {
				for _, set := range ids {
					sets[set] = true
				}
			}
		}
	}
	for _, e := range c.out.Endpoints {
		follow(e.Ingress)
		follow(e.Egress)
	}
	maps.DeleteFunc(c.out.Chains, func(id ChainID, _ Chain) bool { return !chains[id] })
	maps.DeleteFunc(c.out.Sets, func(id SetID, _ Set) bool { return !sets[id] })
}
