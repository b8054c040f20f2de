// Package check compares a whole cluster with itself: sessions, blocks, routes,
// MTUs, pools.
//
// It is pure: the agents' views and the API's objects go in, findings come out.
// It never asks anybody. Kernel and wire footprint: none.
package check

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/bgp"
	"github.com/muslin-net/muslin/pkg/ctl/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
	"github.com/muslin-net/muslin/pkg/validate"
)

// Severity is how bad a finding is.
type Severity string

// The severities. Only errors make the check fail.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Finding is something wrong.
type Finding struct {
	Severity Severity `json:"severity"`
	Class    string   `json:"class"`
	Node     string   `json:"node,omitempty"`
	Object   string   `json:"object"`
	Text     string   `json:"text"`
}

// Cluster is what is compared.
type Cluster struct {
	Nodes  []model.NodeName
	Views  map[model.NodeName]*nodeview.View // nodes whose agent has answered
	Errors map[model.NodeName]string         // why others have not
	Blocks []model.Block                     // every BlockAffinity
	Pools  []validate.Pool
}

// Run gives the findings, errors first, then by node and object.
func Run(c Cluster) []Finding {
	r := &run{Cluster: c}
	r.agents()
	r.pools()
	r.owners()
	for _, n := range slices.Sorted(maps.Keys(c.Views)) {
		v := c.Views[n]
		r.sessions(v)
		r.routes(v)
		r.blocks(v)
		r.problems(v)
	}
	r.mtu()
	slices.SortStableFunc(r.out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Class, b.Class), cmp.Compare(a.Object, b.Object))
	})
	return r.out
}

type run struct {
	Cluster
	out []Finding
}

func (r *run) add(s Severity, class string, node model.NodeName, object, format string, args ...any) {
	r.out = append(r.out, Finding{s, class, string(node), object, fmt.Sprintf(format, args...)})
}

func (r *run) agents() {
	for _, n := range r.Nodes {
		if why, bad := r.Errors[n]; bad {
			r.add(Error, "AgentDown", n, "Node "+string(n), "the agent does not answer: %s", why)
		} else if v := r.Views[n]; v != nil && len(v.Waiting) > 0 {
			r.add(Error, "AgentNotReady", n, "Node "+string(n), "the agent waits for %s", v.Waiting[0])
		}
	}
}

func (r *run) pools() {
	for name, v := range validate.Pools(r.Pools) {
		if !v.Allocatable && v.Reason != "PoolDisabled" {
			r.add(Error, v.Reason, "", "IPPool "+name, "%s", v.Message)
		}
	}
	if len(r.Pools) == 0 {
		r.add(Error, "NoPool", "", "IPPool", "there is no pool: no pod gets an address")
	}
	for _, b := range r.Blocks {
		if !slices.ContainsFunc(r.Pools, func(p validate.Pool) bool { return p.CIDR.Overlaps(b.CIDR) }) {
			r.add(Error, "StrayBlock", b.Node, "block "+b.CIDR.String(), "the block lies in no pool")
		}
	}
}

// owners looks for blocks that two nodes claim, or one that is gone.
func (r *run) owners() {
	first := map[netip.Prefix]model.NodeName{}
	for _, b := range r.Blocks {
		if b.State != model.BlockConfirmed || b.Node == "" {
			continue
		}
		if !slices.Contains(r.Nodes, b.Node) {
			r.add(Error, "StaleOwner", b.Node, "block "+b.CIDR.String(), "the block belongs to node %s, which does not exist", b.Node)
		}
		if other, taken := first[b.CIDR]; taken && other != b.Node {
			r.add(Error, "StaleOwner", b.Node, "block "+b.CIDR.String(), "nodes %s and %s both claim the block", other, b.Node)
		}
		first[b.CIDR] = b.Node
	}
}

func (r *run) sessions(v *nodeview.View) {
	for _, p := range v.Peers {
		if p.State == "Established" {
			continue
		}
		why := p.State
		if p.LastError != "" {
			why += ": " + p.LastError
		}
		r.add(Error, "SessionDown", v.Node, p.Object.String(), "the session with %s is not up (%s)", p.Address, why)
	}
}

func (r *run) routes(v *nodeview.View) {
	for _, d := range v.Routes() {
		switch {
		case d.Agrees():
		case d.Want == nil:
			r.add(Error, "RouteSurplus", v.Node, "route "+d.Have.Prefix.String(), "the kernel has a route of Muslin's that nothing asks for: %s", d.Have)
		case d.Shadowed != nil:
			r.add(Error, "RouteShadowed", v.Node, "route "+d.Want.Prefix.String(), "%s is used in place of it", d.Shadowed)
		default:
			r.add(Error, "RouteMissing", v.Node, "route "+d.Want.Prefix.String(), "the kernel has not %s", d.Want)
		}
	}
	for _, e := range v.Kernel.Errors {
		r.add(Warning, "KernelUnread", v.Node, "Node "+string(v.Node), "%s", e)
	}
	for _, t := range v.State.Tunnels {
		if !slices.ContainsFunc(v.Kernel.Links, func(l nodeview.Link) bool { return l.Name == t.Name && l.Up }) {
			r.add(Error, "TunnelMissing", v.Node, "link "+t.Name, "the tunnel device is not up")
		}
	}
	for _, c := range v.Kernel.Chains {
		if c.Drops && c.Hook == "forward" {
			r.add(Warning, "DropsByDefault", v.Node, fmt.Sprintf("chain %s %s %s", c.Family, c.Table, c.Name), "forwarded packets are dropped unless a rule there accepts them")
		}
	}
}

// blocks has every confirmed block of another node looked for in the kernel of
// this one, and the next hop compared with the owner.
func (r *run) blocks(v *nodeview.View) {
	origin := bgp.NewOriginCheck(model.Snapshot{
		Pools: modelPools(r.Pools), Blocks: r.Blocks, Nodes: nil,
		BGP: []model.BGPConfiguration{{Name: "default", Annotations: map[string]string{bgp.AnnotationOriginCheck: string(bgp.OriginWarn)}}},
	})
	_, refused := origin.Apply(v.Learned, nil)
	for _, x := range refused {
		r.add(Error, "ForeignOrigin", v.Node, "prefix "+x.Prefix.String(), "%s announces it by way of %s, and no block is or holds it", x.From, x.NextHop)
	}
	for _, b := range r.Blocks {
		if b.State != model.BlockConfirmed || b.Node == v.Node || b.Node == "" || r.private(b.CIDR) || r.Views[b.Node] == nil {
			continue
		}
		if !slices.ContainsFunc(v.Kernel.Routes, func(k nodeview.Route) bool { return k.Protocol == model.RouteProtocol && k.Prefix == b.CIDR }) {
			r.add(Error, "BlockUnreachable", v.Node, "block "+b.CIDR.String(), "the block of node %s is not in the kernel; muslinctl explain says why", b.Node)
		}
	}
}

func (r *run) private(p netip.Prefix) bool {
	return slices.ContainsFunc(r.Pools, func(q validate.Pool) bool { return q.DisableBGPExport && q.CIDR.Overlaps(p) })
}

func modelPools(in []validate.Pool) []model.Pool {
	out := make([]model.Pool, len(in))
	for i, p := range in {
		out[i] = p.Pool
	}
	return out
}

func (r *run) problems(v *nodeview.View) {
	for _, p := range v.Problems {
		r.add(Warning, p.Reason, v.Node, p.Object.String(), "%s: %s", p.Field, p.Message)
	}
}

// mtu compares what pods may send with what the nodes' pods take.
func (r *run) mtu() {
	smallest, largest := 0, 0
	var low, high model.NodeName
	for n, v := range r.Views {
		m := v.State.MTU.Pod
		if m == 0 {
			continue
		}
		if smallest == 0 || m < smallest {
			smallest, low = m, n
		}
		if m > largest {
			largest, high = m, n
		}
	}
	if smallest != largest {
		r.add(Error, "MTUDiffers", low, "Node "+string(low), "pods have an MTU of %d here and of %d on node %s; set FelixConfiguration default: spec.mtu, or the links alike", smallest, largest, high)
	}
}
