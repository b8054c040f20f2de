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
	"github.com/muslin-net/muslin/cmd/muslinctl/explain"
	"github.com/muslin-net/muslin/felix/nodeview"
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
	// Answers has, by node and address of a peer whose session is down, what it
	// answers to the node.
	Answers map[model.NodeName]map[netip.Addr]explain.Answer
	// Paths are what was told of the ways from nodes to pods of other nodes.
	Paths []Path
}

// Path is the story of a pod's address as one node tells it.
type Path struct {
	From, To model.NodeName
	explain.Story
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
	r.paths()
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
			r.add(Error, string(explain.AgentDown), n, "Node "+string(n), "the agent does not answer: %s", why)
		} else if v := r.Views[n]; v != nil && len(v.Waiting) > 0 {
			r.add(Error, "AgentNotReady", n, "Node "+string(n), "the agent waits for %s", v.Waiting[0])
		}
	}
}

func (r *run) pools() {
	for name, v := range validate.Pools(r.Pools) {
		if !v.Allocatable && v.Reason != "PoolDisabled" {
			r.add(Error, v.Reason, "", "IPPool "+name, "%s", v.Message)
		} else if v.Allocatable && v.Reason != "OK" {
			r.add(Warning, v.Reason, "", "IPPool "+name, "%s", v.Message)
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
			r.add(Error, string(explain.StaleOwner), b.Node, "block "+b.CIDR.String(), "the block belongs to node %s, which does not exist", b.Node)
		}
		if other, taken := first[b.CIDR]; taken && other != b.Node {
			r.add(Error, string(explain.StaleOwner), b.Node, "block "+b.CIDR.String(), "nodes %s and %s both claim the block", other, b.Node)
		}
		first[b.CIDR] = b.Node
	}
}

func (r *run) sessions(v *nodeview.View) {
	for _, p := range v.Peers {
		if p.Up() {
			continue
		}
		f := explain.Session(v, r.far(v, p), p, r.Answers[v.Node][p.Address])
		r.add(Error, string(f.Class), v.Node, f.Object, "%s: %s", f.Text, f.Fix)
	}
}

// far is the view of the node at the other end of a session, nil for a router.
func (r *run) far(v *nodeview.View, p model.PeerStatus) *nodeview.View {
	peer, _ := v.BGP.Peer(p.Address)
	for _, other := range r.Views {
		if _, ok := explain.OtherSide(peer, other); ok {
			return other
		}
	}
	return nil
}

// paths has each broken way once; a pool that is not announced may be meant to
// be so.
func (r *run) paths() {
	seen := map[Finding]bool{}
	for _, w := range r.Paths {
		if w.Broken == "" {
			continue
		}
		f := Finding{Error, string(w.Broken), string(w.From), w.Object, w.Steps[len(w.Steps)-1].Text + ": " + w.Fix}
		if w.Broken == explain.NotExported {
			f.Severity = Warning
		}
		known := slices.ContainsFunc(r.out, func(g Finding) bool {
			return g.Severity == f.Severity && g.Class == f.Class && g.Object == f.Object && (g.Node == f.Node || g.Node == "")
		})
		if !seen[f] && !known {
			r.out = append(r.out, f)
		}
		seen[f] = true
	}
}

func (r *run) routes(v *nodeview.View) {
	for _, d := range v.Routes() {
		switch {
		case d.Agrees():
		case d.Want == nil:
			r.add(Error, "RouteSurplus", v.Node, "route "+d.Have.Prefix.String(), "the kernel has a route of Muslin's that nothing asks for: %s", d.Have)
		case d.Occupied():
			r.add(Error, string(explain.NotInstalled), v.Node, "route "+d.Want.Prefix.String(), "%s stands in its place, and the agent leaves alone what it did not write; take it away", d.Shadowed)
		case d.Shadowed != nil:
			r.add(Error, string(explain.Shadowed), v.Node, "route "+d.Want.Prefix.String(), "%s is used in place of it", d.Shadowed)
		default:
			r.add(Error, string(explain.NotInstalled), v.Node, "route "+d.Want.Prefix.String(), "the kernel has not %s", d.Want)
		}
	}
	for _, e := range v.Kernel.Errors {
		r.add(Warning, "KernelUnread", v.Node, "Node "+string(v.Node), "%s", e)
	}
	for _, t := range v.State.Tunnels {
		if !slices.ContainsFunc(v.Kernel.Links, func(l nodeview.Link) bool { return l.Name == t.Name && l.Up }) {
			r.add(Error, string(explain.TunnelMissing), v.Node, "link "+t.Name, "the tunnel device is not up")
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
	}, v.Node)
	_, refused := origin.Apply(v.Learned, nil)
	for _, x := range refused {
		r.add(Error, "ForeignOrigin", v.Node, "prefix "+x.Prefix.String(), "%s announces it by way of %s, and no block is or holds it", x.From, x.NextHop)
	}
	for _, b := range r.Blocks {
		if b.State != model.BlockConfirmed || b.Node == v.Node || b.Node == "" || r.private(b.CIDR) || r.Views[b.Node] == nil {
			continue
		}
		if r.reported(v.Node, b.Node) {
			continue
		}
		if !slices.ContainsFunc(v.Kernel.Routes, func(k nodeview.Route) bool { return k.Protocol == model.RouteProtocol && k.Prefix == b.CIDR }) {
			r.add(Error, "BlockUnreachable", v.Node, "block "+b.CIDR.String(), "the block of node %s is not in the kernel; muslinctl explain says why", b.Node)
		}
	}
}

// reported reports that a broken way between two nodes says more of it.
func (r *run) reported(from, to model.NodeName) bool {
	return slices.ContainsFunc(r.Paths, func(w Path) bool { return w.From == from && w.To == to && w.Broken != "" })
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
		r.add(Error, "MTUDiffers", low, "Node "+string(low), "pods have an MTU of %d here and of %d on node %s; make the links alike, or have FelixConfiguration default: spec.mtuIfacePattern name those that count", smallest, largest, high)
	}
}
