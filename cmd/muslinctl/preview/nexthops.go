package preview

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/pkg/model"
)

// Path is a change of a node's way to the pods of a block.
type Path struct {
	Node  model.NodeName `json:"node"` // who sends
	Block string         `json:"block"`
	Owner model.NodeName `json:"owner"`
	What  string         `json:"what"` // lost, gained, moved
	From  string         `json:"from,omitempty"`
	To    string         `json:"to,omitempty"`
	Pods  int            `json:"pods"` // of the owner in the block
}

func (p Path) pods() string {
	if p.Pods == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d pods)", p.Pods)
}

func (p Path) nextHop() string {
	switch p.What {
	case "lost":
		return "was " + p.From
	case "gained":
		return p.To
	}
	return p.From + " becomes " + p.To
}

// nextHop is how a node sends to a prefix.
type nextHop struct {
	owner model.NodeName
	text  string
}

type target struct {
	node   model.NodeName
	prefix netip.Prefix
}

// nextHops decides for every node how it sends to what it has learned: as its kernel
// will have it, or where the agent did not answer, by which next hop.
func nextHops(s Side, learned map[model.NodeName][]learnedPrefix, live Live) map[target]nextHop {
	out := map[target]nextHop{}
	for n, list := range learned {
		next := map[netip.Prefix][]netip.Addr{}
		for _, h := range list {
			next[h.Prefix] = append(next[h.Prefix], h.NextHop)
		}
		host, known := live.Hosts[n]
		var routes map[netip.Prefix]felix.Route
		if known {
			routes = kernel(s, n, next, host)
		}
		for _, h := range list {
			t := target{n, h.Prefix}
			switch r, ok := routes[h.Prefix]; {
			case known && ok:
				out[t] = nextHop{h.owner, hops(r)}
			case !known:
				out[t] = nextHop{h.owner, "next hop " + model.Join(next[h.Prefix])}
			}
		}
	}
	return out
}

// kernel asks the agents' own decision for the routes of a node.
func kernel(s Side, n model.NodeName, next map[netip.Prefix][]netip.Addr, host model.Host) map[netip.Prefix]felix.Route {
	in := felix.Input{Self: n, Snapshot: s.Of(n), LearnedSynced: true, Host: host, HostSynced: true, EndpointsSynced: true}
	for p, hops := range next {
		slices.SortFunc(hops, netip.Addr.Compare)
		in.Learned = append(in.Learned, model.Learned{Prefix: p, Multipath: &model.Multipath{NextHops: slices.Compact(hops), From: hops}})
	}
	slices.SortFunc(in.Learned, func(a, b model.Learned) int { return a.Prefix.Compare(b.Prefix) })
	imagine(&in)
	state, _ := felix.Desired(in)
	out := map[netip.Prefix]felix.Route{}
	for _, r := range state.Routes {
		out[r.Prefix] = r
	}
	return out
}

// imagine has the tunnels there that the pools ask for: the agents make them,
// and give the nodes addresses for them, before a route leads over one.
func imagine(in *felix.Input) {
	in.Snapshot.Nodes = slices.Clone(in.Snapshot.Nodes)
	for i := range in.Snapshot.Nodes {
		n := &in.Snapshot.Nodes[i]
		stand := func(family byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, family, byte(i)}) }
		n.IPIPTunnel, n.VXLANTunnel = cmp.Or(n.IPIPTunnel, stand(0)), cmp.Or(n.VXLANTunnel, stand(1))
		v6 := netip.MustParseAddr("100::").As16() // RFC 6666: leads nowhere
		v6[14], v6[15] = byte(i>>8), byte(i)
		n.VXLANTunnelV6 = cmp.Or(n.VXLANTunnelV6, netip.AddrFrom16(v6))
	}
	links := slices.Clone(in.Host.Links)
	for i, name := range []string{felix.IPIPDevice, felix.VXLANDevice, felix.VXLANDeviceV6} {
		if !slices.ContainsFunc(links, func(l model.Link) bool { return l.Name == name && l.AdminUp }) {
			links = slices.DeleteFunc(links, func(l model.Link) bool { return l.Name == name })
			links = append(links, model.Link{Index: 1<<30 + i, Name: name, Up: true, AdminUp: true, MTU: 1280})
		}
	}
	in.Host.Links = links
}

// hops is a route's way out; the far end of a tunnel is left out, which gets its
// address only when the tunnel is made.
func hops(r felix.Route) string {
	out := make([]string, len(r.NextHops))
	for i, h := range r.NextHops {
		switch h.Device {
		case felix.IPIPDevice, felix.VXLANDevice, felix.VXLANDeviceV6:
			out[i] = "dev " + h.Device
		default:
			out[i] = h.String()
		}
	}
	return strings.Join(out, " ")
}

// paths are the ways that differ.
func paths(have, will map[target]nextHop, live Live) []Path {
	var out []Path
	add := func(t target, w nextHop, what, from, to string) {
		p := Path{Node: t.node, Block: t.prefix.String(), Owner: w.owner, What: what, From: from, To: to}
		if live.Pods != nil {
			p.Pods = live.Pods(w.owner, t.prefix)
		}
		out = append(out, p)
	}
	for t, w := range have {
		switch x, stays := will[t]; {
		case !stays:
			add(t, w, "lost", w.text, "")
		case x.text != w.text:
			add(t, x, "moved", w.text, x.text)
		}
	}
	for t, w := range will {
		if _, had := have[t]; !had {
			add(t, w, "gained", "", w.text)
		}
	}
	slices.SortFunc(out, func(a, b Path) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Block, b.Block))
	})
	return out
}
