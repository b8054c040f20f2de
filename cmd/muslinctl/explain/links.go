package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/pkg/model"
)

func (t *builder) address() bool {
	if t.Block == nil || !t.Block.Assigned {
		return t.broken("address", NotAssigned, "the pod, or IPPool and its blocks", "no pod has this address; see muslinctl ipam show --ip", "%s is not assigned to anybody", t.To)
	}
	if t.Pod == nil {
		return t.broken("address", NotAssigned, "handle "+t.Block.Handle, "the pod is gone and its address has leaked; muslinctl ipam check, then ipam release", "%s is assigned to handle %s, and no pod uses it", t.To, t.Block.Handle)
	}
	ref := "Pod " + t.Pod.Namespace + "/" + t.Pod.Name
	if t.Pod.Phase != "Running" {
		return t.broken("address", PodNotRunning, ref, "see kubectl describe pod", "%s is of %s, which is %s", t.To, ref, t.Pod.Phase)
	}
	t.ok("address", "%s is of %s on node %s", t.To, ref, t.Pod.Node)
	return true
}

func (t *builder) block() bool {
	b := t.Block
	object := "BlockAffinity of block " + b.CIDR.String()
	for node, state := range b.Affinities {
		if node != b.Node && state == model.BlockConfirmed {
			return t.broken("block", StaleOwner, object, fmt.Sprintf("two nodes announce the block; delete the BlockAffinity of %s with kubectl", node),
				"block %s belongs to node %s, but node %s claims it too", b.CIDR, orNobody(b.Node), node)
		}
	}
	if b.Node != "" && !t.Nodes[b.Node] {
		return t.broken("block", StaleOwner, object, "the controller takes back what a node that is gone has held; is it running?", "block %s belongs to node %s, which does not exist", b.CIDR, b.Node)
	}
	if state := b.Affinities[b.Node]; b.Node == t.Pod.Node && state != model.BlockConfirmed {
		return t.broken("block", StaleOwner, object, "the node's agent confirms its blocks; see muslinctl node show "+string(b.Node)+" problems",
			"block %s belongs to node %s, whose claim is %q and not confirmed: it is not announced", b.CIDR, b.Node, state)
	}
	if b.Node != t.Pod.Node {
		t.ok("block", "%s of node %s; node %s borrows the address", b.CIDR, orNobody(b.Node), t.Pod.Node)
	} else {
		t.ok("block", "%s of node %s, confirmed", b.CIDR, b.Node)
	}
	return true
}

func orNobody(n model.NodeName) string {
	if n == "" {
		return "nobody"
	}
	return string(n)
}

func (t *builder) owner() bool {
	node := string(t.Pod.Node)
	if t.Owner == nil {
		return t.broken("owner", AgentDown, "the agent's pod on node "+node, "see kubectl -n muslin-system get pods -o wide, and its log", "the agent of node %s does not answer: %s", node, t.OwnerError)
	}
	for _, d := range t.Owner.Routes() {
		switch {
		case d.Want == nil || d.Want.Prefix != netip.PrefixFrom(t.To, t.To.BitLen()):
		case d.Agrees():
			t.ok("owner", "node %s has the route to the pod: %s", node, d.Want)
			return true
		default:
			return t.broken("owner", PodUnplugged, "the route on node "+node, "see muslinctl node show "+node+" routes, and the agent's log",
				"node %s wants %s, and the kernel has not", node, d.Want)
		}
	}
	return t.broken("owner", PodUnplugged, "Pod "+t.Pod.Namespace+"/"+t.Pod.Name, "delete the pod, so that it is plugged in again", "node %s knows no interface of the pod", node)
}

// prefix is what the owner announces for the address.
func (t *builder) prefix() netip.Prefix {
	if t.Block.Node == t.Pod.Node {
		return t.Block.CIDR
	}
	return netip.PrefixFrom(t.To, t.To.BitLen())
}

func (t *builder) pool() bool {
	if t.local() {
		return true
	}
	for _, p := range t.Pools {
		if !p.CIDR.Contains(t.To) {
			continue
		}
		if p.DisableBGPExport && !t.byIPAM() {
			return t.broken("pool", NotExported, "IPPool "+p.Name+": spec.disableBGPExport", "set it to false", "IPPool %s is not announced", p.Name)
		}
		t.ok("pool", "%s of IPPool %s", p.CIDR, p.Name)
		return true
	}
	return t.broken("pool", NotExported, "IPPool of "+t.To.String(), "make the pool again; nothing outside pools is passed on", "the address is in no pool")
}

// local reports that the asker is the owner: no BGP is in between.
func (t *builder) local() bool { return t.FromNode == t.Pod.Node }

func (t *builder) asker() bool {
	if t.From == nil {
		return t.broken("asker", AgentDown, "the agent's pod on node "+string(t.FromNode), "see kubectl -n muslin-system get pods -o wide, and its log", "the agent of node %s does not answer: %s", t.FromNode, t.FromError)
	}
	return true
}

func (t *builder) tunnel() bool {
	for _, tun := range t.From.State.Tunnels {
		i := slices.IndexFunc(t.From.Kernel.Links, func(l nodeview.Link) bool { return l.Name == tun.Name })
		if i < 0 || !t.From.Kernel.Links[i].Up {
			what := "is not there"
			if i >= 0 {
				what = "is down"
			}
			return t.broken("tunnel", TunnelMissing, "link "+tun.Name+" on node "+string(t.FromNode), "see muslinctl node show "+string(t.FromNode)+" problems; does the kernel have the module?", "the tunnel device %s %s", tun.Name, what)
		}
		t.ok("tunnel", "%s is up, MTU %d", tun.Name, t.From.Kernel.Links[i].MTU)
	}
	return true
}

func (t *builder) learned() bool {
	if t.local() {
		return true
	}
	if t.byIPAM() {
		t.ok("rib", "node %s has %s from IPAM, without BGP", t.FromNode, t.prefix())
		return true
	}
	for _, l := range t.From.Learned {
		if l.Prefix == t.prefix() {
			t.ok("rib", "node %s has learned %s via %s from %s", t.FromNode, l.Prefix, model.Join(l.NextHops), model.Join(l.From))
			return true
		}
	}
	prefix := t.prefix()
	if t.From.Others > 0 && len(t.From.Peers) == 0 {
		return t.notComputed()
	}
	for _, p := range t.From.Peers {
		if !p.Up() {
			if matters(t.From, t.Pod.Node, p) {
				return t.down(t.From, t.Owner, p, t.FromReach[p.Address])
			}
			continue
		}
		peer, _ := t.From.BGP.Peer(p.Address)
		if rule, rejected := rejects(t.From.BGP, peer.Import, prefix, false); rejected && strings.HasPrefix(rule, "filter ") {
			return t.broken("rib", FilterRejects, filterObject(rule), "accept the prefix in the rule, or take the filter off "+p.Object.String(),
				"node %s does not take %s from %s: %s", t.FromNode, prefix, p.Address, rule)
		}
	}
	return t.broken("rib", NotLearned, "the sessions of node "+string(t.FromNode), "see muslinctl node status "+string(t.FromNode)+", and the router's own table",
		"node %s has not learned %s", t.FromNode, prefix)
}

// byIPAM reports that the asker computes the route, so that BGP has no part in it.
func (t *builder) byIPAM() bool { return t.From != nil && t.From.State.Computed(t.prefix()) }

// notComputed ends the story with what keeps a node without BGP from computing the
// route.
func (t *builder) notComputed() bool {
	object, fix := "muslinctl node show "+string(t.FromNode)+" problems", "the problems of the node say why"
	for _, p := range t.From.Problems {
		onNode := p.Object == model.Ref{Kind: "Node", Name: string(t.Pod.Node)}
		inPool := p.Object.Kind == "IPPool" && slices.ContainsFunc(t.Pools, func(q model.Pool) bool { return q.Name == p.Object.Name && q.CIDR.Contains(t.To) })
		if onNode || inPool {
			object, fix = p.Object.String()+": "+p.Field, p.Message
		}
	}
	return t.broken("rib", NotComputed, object, fix, "node %s speaks BGP with nobody, and computes no route to %s", t.FromNode, t.prefix())
}

func (t *builder) fib() bool {
	node := string(t.FromNode)
	best := t.best()
	for _, d := range t.From.Routes() {
		if d.Want == nil || d.Want.Prefix != t.wantedPrefix() {
			continue
		}
		switch {
		case d.Occupied():
			return t.broken("fib", NotInstalled, "the route of "+nodeview.Protocol(d.Shadowed.Protocol)+" on node "+node, "the agent leaves alone what it did not write: take the other route away, "+removal(d.Shadowed)+", and it puts its own there",
				"node %s wants %s, and %s stands in its place", node, d.Want, d.Shadowed)
		case d.Shadowed != nil:
			return t.shadowed(d.Shadowed)
		case d.Have == nil || !d.Agrees():
			return t.broken("fib", NotInstalled, "the main routing table of node "+node, "the agent puts it back; what keeps it from doing so is in muslinctl node show "+node+" problems and in its log",
				"node %s wants %s, and the kernel has %s", node, d.Want, orNone(d.Have))
		case best != nil && best.Protocol != model.RouteProtocol:
			return t.shadowed(best)
		}
		for _, h := range d.Have.NextHops {
			if h.Down && len(d.Have.NextHops) == 1 {
				return t.broken("fib", LinkDown, "link "+h.Device+" on node "+node, "bring the link up", "%s leads over %s, which is down", d.Have, h.Device)
			}
		}
		t.ok("fib", "%s", d.Have)
		return true
	}
	if best != nil && best.Protocol != model.RouteProtocol && best.Prefix.Bits() > 0 {
		return t.shadowed(best)
	}
	return t.broken("fib", NotInstalled, "muslinctl node show "+node+" problems", "the problems of the node say why there is no route", "node %s has learned %s and wants no route for it", node, t.prefix())
}

func (t *builder) shadowed(by *nodeview.Route) bool {
	return t.broken("fib", Shadowed, "the route of "+nodeview.Protocol(by.Protocol)+" on node "+string(t.FromNode), "take the other route away: "+removal(by),
		"the kernel of node %s uses %s", t.FromNode, by)
}

// removal is the command that takes a route away.
func removal(r *nodeview.Route) string {
	return fmt.Sprintf("ip route del %s proto %d metric %d", r.Prefix, r.Protocol, r.Metric)
}

func orNone(r *nodeview.Route) string {
	if r == nil {
		return "none"
	}
	return r.String()
}

// wantedPrefix is the most specific desired route that holds the address.
func (t *builder) wantedPrefix() netip.Prefix {
	var out netip.Prefix
	for _, r := range t.From.State.Routes {
		if r.Prefix.Contains(t.To) && (!out.IsValid() || r.Prefix.Bits() > out.Bits()) {
			out = r.Prefix
		}
	}
	return out
}

// best is the route that the kernel uses: the longest prefix, then the lowest
// metric.
func (t *builder) best() *nodeview.Route {
	var out *nodeview.Route
	for i := range t.From.Kernel.Routes {
		r := &t.From.Kernel.Routes[i]
		if r.Prefix.Contains(t.To) && (out == nil || r.Prefix.Bits() > out.Prefix.Bits() || r.Prefix.Bits() == out.Prefix.Bits() && r.Metric < out.Metric) {
			out = r
		}
	}
	return out
}

func (t *builder) neighbour() bool {
	if t.Path == nil {
		return true
	}
	if t.Path.Error != "" {
		return t.broken("fib", NotInstalled, "the routing tables and rules of node "+string(t.FromNode), "see ip rule and ip route get there", "the kernel has no way: %s", t.Path.Error)
	}
	state, _, _ := strings.Cut(t.Path.Neighbour, " ")
	if !t.Path.Small.OK && slices.Contains([]string{"failed", "incomplete"}, state) {
		return t.broken("neighbour", Unresolved, "link "+t.Path.Device+" of node "+string(t.FromNode), "the next hop does not answer ARP or ND: is it up, and on this link?",
			"the next hop over %s is not resolved (%s)", t.Path.Device, state)
	}
	t.ok("neighbour", "over %s: %s", t.Path.Device, orText(t.Path.Neighbour, "not needed"))
	return true
}

func orText(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// policy is asked between two pods. Nothing at all has to pass for the link to be
// broken; what the probe meets is another question.
func (t *builder) policy() bool {
	j := t.Policy
	switch {
	case t.PolicyError != "":
		t.ok("policy", "not known: %s", t.PolicyError)
	case j == nil || j.From.Pod == nil:
	case len(j.passes()) == 0:
		_, d := j.denied(Echo(j.From.Addr, j.To.Addr))
		return t.broken("policy", PolicyDenies, d.object, allowIt, "nothing of %s passes: %s", j.From, d.text)
	default:
		t.ok("policy", "of %s passes: %s", j.From, strings.Join(j.passes(), ", "))
	}
	return true
}

func (t *builder) probe() bool {
	if t.Path == nil {
		return true
	}
	small, large := t.Path.Small, t.Path.Large
	switch {
	case !small.OK:
		return t.silence(small)
	case !large.OK:
		return t.broken("probe", MTUTooSmall, t.narrow(), "make the links between the nodes carry the pods' MTU, or have FelixConfiguration default: spec.mtuIfacePattern name the link with the smallest one",
			"%d bytes arrive, %d do not: %s", small.Size, large.Size, large.Reason)
	}
	t.ok("probe", "%d and %d bytes answered in %s", small.Size, large.Size, small.RTT.Round(10_000))
	return true
}

// silence looks for who may have dropped the probe.
func (t *builder) silence(p nodeview.Probe) bool {
	if j := t.Policy; j != nil && j.From.Pod == nil {
		if s, d := j.denied(Echo(j.From.Addr, j.To.Addr)); s != nil {
			return t.broken("probe", PolicyDenies, d.object, allowIt, "%s; the echo of %s is dropped: %s", p.Reason, j.From, d.text)
		}
	}
	for _, v := range []*nodeview.View{t.From, t.Owner} {
		if v == nil {
			continue
		}
		for _, c := range v.Kernel.Chains {
			if c.Drops && (c.Hook == "forward" || c.Hook == "prerouting" || v == t.From && (c.Hook == "output" || c.Hook == "postrouting" || c.Hook == "input")) {
				return t.broken("probe", Dropped, fmt.Sprintf("nftables table %s %s, chain %s on node %s", c.Family, c.Table, c.Name, v.Node), "accept the pods' addresses in the chain, or change its policy",
					"%s; node %s drops by default in hook %s", p.Reason, v.Node, c.Hook)
			}
		}
	}
	return t.broken("probe", NoAnswer, "the pod, or a firewall between the nodes", "every link that Muslin knows is as it should be; does the pod answer an echo on its own node?", "%s", p.Reason)
}

// narrow is the link whose MTU is below what pods send.
func (t *builder) narrow() string {
	if t.Path.MTU > 0 && t.Path.MTU < t.Path.Large.Size {
		return fmt.Sprintf("link %s on node %s: MTU %d", t.Path.Device, t.FromNode, t.Path.MTU)
	}
	return "the MTU of a link between node " + string(t.FromNode) + " and node " + string(t.Pod.Node)
}
