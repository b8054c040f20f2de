package preview

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// PodChange is what becomes of a pod in one direction.
type PodChange struct {
	Pod       string   `json:"pod"`       // NAMESPACE/NAME
	Direction string   `json:"direction"` // ingress, egress
	What      string   `json:"what"`      // isolated: a policy selects it that was open; opened: the reverse; changed: by other rules
	By        []string `json:"by,omitempty"`
}

// Flow is a connection that there is now, or, if not Live, that was denied not long ago.
type Flow struct {
	nodeview.Flow
	Live bool
}

// FlowChange is a Flow that would be decided otherwise.
type FlowChange struct {
	nodeview.Flow
	From string `json:"from"` // a pod, or the address
	To   string `json:"to"`
	What string `json:"what"` // cut, refused if opened anew, allowed
	By   string `json:"by"`   // what would deny, or denies now: direction, tier, policy, rule
}

// PolicyOutcome is what a change of policies does.
type PolicyOutcome struct {
	Pods     []PodChange  `json:"pods"`
	Flows    []FlowChange `json:"flows"`
	Problems []string     `json:"problems,omitempty"`
}

// Policies compares a view with what it would be. nodes tell which addresses are a
// node's own: what it sends to its own pods is not judged.
func Policies(before, after model.PolicyView, nodes []model.Node, flows []Flow) PolicyOutcome {
	was, is := evaluate(before, nodes), evaluate(after, nodes)
	out := PolicyOutcome{Pods: []PodChange{}, Flows: []FlowChange{}}
	for _, e := range is.ends {
		a, b := was.program.Endpoints[e.HostInterface], is.program.Endpoints[e.HostInterface]
		for _, d := range []struct {
			name   string
			a, b   policy.ChainID
			decide func(model.Policy) bool
		}{
			{"ingress", a.Ingress, b.Ingress, func(p model.Policy) bool { return p.Ingress }},
			{"egress", a.Egress, b.Egress, func(p model.Policy) bool { return p.Egress }},
		} {
			what := change(was.program, is.program, d.a, d.b)
			if what == "" {
				continue
			}
			c := PodChange{Pod: e.HostInterface, Direction: d.name, What: what}
			for _, p := range is.selecting(e.Namespace, e.Pod) {
				if d.decide(p) {
					c.By = append(c.By, p.Object.String())
				}
			}
			out.Pods = append(out.Pods, c)
		}
	}
	for _, f := range flows {
		old, _ := was.flow(f.Flow)
		new, at := is.flow(f.Flow)
		c := FlowChange{Flow: f.Flow, From: was.name(f.Source), To: was.name(f.Destination)}
		switch {
		case old == "" && new != "":
			c.What, c.By = "refused", new
			if on, _ := felix.Epochs(after.Felix, at); on && f.Live {
				c.What = "cut"
			}
		case old != "" && new == "":
			c.What, c.By = "allowed", old
		default:
			continue
		}
		out.Flows = append(out.Flows, c)
	}
	slices.SortFunc(out.Flows, func(a, b FlowChange) int {
		return cmp.Or(-cmp.Compare(a.What, b.What), cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return out
}

// change says what it means that a pod gets another chain; "" if both do the same.
func change(before, after policy.Program, a, b policy.ChainID) string {
	switch {
	case a == "" && b == "":
		return ""
	case a == "":
		return "isolated"
	case b == "":
		return "opened"
	case a != b || !sameRules(before, after, a):
		return "changed"
	}
	return ""
}

// sameRules compares the rules of a chain, those it leads to, and the members of the sets that they name.
func sameRules(before, after policy.Program, id policy.ChainID) bool {
	if before.Chain(id).String() != after.Chain(id).String() {
		return false
	}
	for _, r := range before.Chain(id).Rules {
		if r.Verdict == policy.Pass && !sameRules(before, after, r.Next) {
			return false
		}
		for _, set := range slices.Concat(r.Source.In, r.Source.NotIn, r.Destination.In, r.Destination.NotIn) {
			a, b := before.Set(set), after.Set(set)
			if !a.Addresses.Equal(b.Addresses) || !a.Nets.Equal(b.Nets) || !a.Ports.Equal(b.Ports) {
				return false
			}
		}
	}
	return true
}

// judgement is the whole cluster's policy as if all pods were on one node.
type judgement struct {
	program   policy.Program
	selecting func(namespace, name string) []model.Policy
	ends      []model.Endpoint // one of each pod, called NAMESPACE/NAME
	byAddr    map[netip.Addr]model.PolicyPod
	own       map[netip.Addr]model.NodeName // addresses of nodes
}

func evaluate(view model.PolicyView, nodes []model.Node) judgement {
	j := judgement{byAddr: map[netip.Addr]model.PolicyPod{}, own: map[netip.Addr]model.NodeName{}}
	for p := range view.Pods.All() {
		if p.HostNetwork || p.Finished {
			continue
		}
		j.ends = append(j.ends, model.Endpoint{Namespace: p.Namespace, Pod: p.Name, HostInterface: p.Namespace + "/" + p.Name, Addresses: p.Addresses})
		for _, a := range p.Addresses {
			j.byAddr[a] = *p
		}
	}
	for _, n := range nodes {
		for _, a := range append(n.Addresses(), n.InternalIPs...) {
			j.own[a] = n.Name
		}
	}
	in := policy.Input{View: view, Endpoints: j.ends, EndpointsSynced: true}
	j.program, _ = policy.Compile(in)
	j.selecting = policy.Selections(in)
	return j
}

// flow says what denies a connection, "" if nothing does, and on which node.
func (j *judgement) flow(f nodeview.Flow) (by string, at model.NodeName) {
	from, isPod := j.byAddr[f.Source]
	to, toPod := j.byAddr[f.Destination]
	if toPod && j.own[f.Source] == to.Node && j.own[f.Source] != "" || isPod && toPod && from.Namespace == to.Namespace && from.Name == to.Name {
		return "", ""
	}
	k := policy.Packet{Source: f.Source, Destination: f.Destination, Protocol: f.Protocol, SourcePort: f.SourcePort, DestinationPort: f.Port, ICMPType: f.ICMPType, ICMPCode: f.ICMPCode}
	for _, side := range []struct {
		is    bool
		name  string
		node  model.NodeName
		chain policy.ChainID
	}{
		{isPod, "egress", from.Node, j.program.Endpoints[from.Namespace+"/"+from.Name].Egress},
		{toPod, "ingress", to.Node, j.program.Endpoints[to.Namespace+"/"+to.Name].Ingress},
	} {
		if nextHop := j.program.Decide(side.chain, k); side.is && !policy.Allowed(nextHop) {
			return side.name + " " + nextHop[len(nextHop)-1].Origin.String(), side.node
		}
	}
	return "", ""
}

func (j *judgement) name(a netip.Addr) string {
	if p, ok := j.byAddr[a]; ok {
		return p.Namespace + "/" + p.Name
	}
	return a.String()
}

// Text is the outcome for people.
func (o PolicyOutcome) Text() string {
	var b strings.Builder
	for _, c := range o.Pods {
		fmt.Fprintf(&b, "%-8s %s of Pod %s", c.What, c.Direction, c.Pod)
		if c.What == "opened" {
			b.WriteString(": no policy selects it any more")
		} else {
			fmt.Fprintf(&b, ": by %s", strings.Join(c.By, ", "))
		}
		b.WriteString("\n")
	}
	for _, f := range o.Flows {
		fmt.Fprintf(&b, "%-8s %s to %s, %s: %s\n", f.What, f.From, f.To, f.Flow.Service(), f.By)
	}
	for _, p := range o.Problems {
		fmt.Fprintf(&b, "problem  %s\n", p)
	}
	counts := map[string]int{}
	for _, c := range o.Pods {
		counts[c.What]++
	}
	for _, f := range o.Flows {
		counts[f.What]++
	}
	fmt.Fprintf(&b, "%d direction(s) of pods become isolated, %d open, %d get other rules; of the connections that are known %d would be cut, %d refused if opened anew, %d allowed.\n",
		counts["isolated"], counts["opened"], counts["changed"], counts["cut"], counts["refused"], counts["allowed"])
	return b.String()
}
