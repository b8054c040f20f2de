package nodeview

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/felix"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// Marks before a line: what is as it should be, what is missing, what is there
// without being wanted, what somebody else overrides.
const (
	same    = "  "
	missing = "+ "
	surplus = "- "
	trouble = "! "
)

// RouteDiff is one desired route, or one of ours that nobody wants.
type RouteDiff struct {
	Want     *felix.Route // nil: not wanted
	Have     *Route       // nil: not in the kernel
	Shadowed *Route       // a route of another protocol that wins over it
}

// Routes compares the desired routes with the kernel's.
func (v View) Routes() []RouteDiff {
	var out []RouteDiff
	wanted := map[netip.Prefix]bool{}
	for i := range v.State.Routes {
		w := &v.State.Routes[i]
		wanted[w.Prefix] = true
		d := RouteDiff{Want: w}
		for j := range v.Kernel.Routes {
			r := &v.Kernel.Routes[j]
			switch {
			case r.Prefix != w.Prefix:
			case r.Protocol == model.RouteProtocol:
				d.Have = r
			case r.Metric <= w.Metric && (d.Shadowed == nil || r.Metric < d.Shadowed.Metric):
				d.Shadowed = r
			}
		}
		out = append(out, d)
	}
	for j := range v.Kernel.Routes {
		if r := &v.Kernel.Routes[j]; r.Protocol == model.RouteProtocol && !wanted[r.Prefix] {
			out = append(out, RouteDiff{Have: r})
		}
	}
	return out
}

// Agrees reports that the kernel has the route as wanted and uses it.
func (d RouteDiff) Agrees() bool {
	return d.Want != nil && d.Have != nil && d.Shadowed == nil && sameHops(*d.Want, *d.Have)
}

// Occupied reports that somebody else's route has the very place, prefix and
// metric, of a wanted one that is not there: the kernel takes one or the other.
func (d RouteDiff) Occupied() bool {
	return d.Want != nil && d.Have == nil && d.Shadowed != nil && d.Shadowed.Metric == d.Want.Metric
}

func sameHops(w felix.Route, r Route) bool {
	kind := map[felix.RouteType]string{felix.Unicast: "unicast", felix.Blackhole: "blackhole", felix.Unreachable: "unreachable"}[w.Type]
	if kind != r.Type {
		return false
	}
	return kind != "unicast" || len(w.NextHops) == len(r.NextHops) && !slices.ContainsFunc(w.NextHops, func(h felix.NextHop) bool {
		return !slices.ContainsFunc(r.NextHops, func(k NextHop) bool {
			return k.Gateway == h.Gateway && (h.Device == "" || k.Device == h.Device)
		})
	})
}

// String gives the route as `ip route` shows it.
func (r Route) String() string {
	var b strings.Builder
	if r.Type != "unicast" {
		b.WriteString(r.Type + " ")
	}
	b.WriteString(r.Prefix.String())
	for _, h := range r.NextHops {
		if h.Gateway.IsValid() {
			b.WriteString(" via " + h.Gateway.String())
		}
		if h.Device != "" {
			b.WriteString(" dev " + h.Device)
		}
		if h.Down {
			b.WriteString(" linkdown")
		}
	}
	fmt.Fprintf(&b, " proto %s metric %d", Protocol(r.Protocol), r.Metric)
	return b.String()
}

// Protocol names a route's protocol.
func Protocol(n int) string {
	names := map[int]string{2: "kernel", 3: "boot", 4: "static", 11: "zebra", 12: "bird", 16: "dhcp", 17: "kube-router", 80: "calico", model.RouteProtocol: "muslin", 186: "bgp", 188: "ospf", 196: "static (FRR)"}
	if s := names[n]; s != "" {
		return s
	}
	return fmt.Sprint(n)
}

// RoutesText marks the differences between desired and real routes.
func (v View) RoutesText() string {
	var b strings.Builder
	b.WriteString("# routes: desired; + missing in the kernel, - not wanted, ! overridden\n")
	for _, d := range v.Routes() {
		switch {
		case d.Want == nil:
			fmt.Fprintf(&b, "%s%s\n", surplus, d.Have)
		case d.Have == nil && d.Shadowed == nil:
			fmt.Fprintf(&b, "%s%s%s\n", missing, d.Want, v.State.Origin(d.Want.Prefix))
		case d.Shadowed != nil:
			fmt.Fprintf(&b, "%s%s\n%s  overridden by %s\n", trouble, d.Want, trouble, d.Shadowed)
		case !d.Agrees():
			fmt.Fprintf(&b, "%s%s\n%s%s\n", missing, d.Want, surplus, d.Have)
		default:
			fmt.Fprintf(&b, "%s%s%s\n", same, d.Want, v.State.Origin(d.Want.Prefix))
		}
	}
	for _, t := range v.State.Tunnels {
		mark := same
		if !slices.ContainsFunc(v.Kernel.Links, func(l Link) bool { return l.Name == t.Name && l.Up }) {
			mark = missing
		}
		fmt.Fprintf(&b, "%s%s", mark, t)
	}
	for _, e := range v.Kernel.Errors {
		fmt.Fprintf(&b, "%skernel: %s\n", trouble, e)
	}
	return b.String()
}

// BGPText is the desired configuration, the sessions and what was learned.
func (v View) BGPText() string {
	var b strings.Builder
	b.WriteString("# desired\n" + v.BGP.String() + "# sessions\n")
	for _, p := range v.Peers {
		mark := same
		if !p.Up() {
			mark = trouble
		}
		fmt.Fprintf(&b, "%s%s as %s %s received %d accepted %d sent %d", mark, p.Address, p.ASN, p.State, total(p.Received), total(p.Accepted), total(p.Sent))
		if p.LastError != "" {
			fmt.Fprintf(&b, " (%s)", p.LastError)
		}
		b.WriteString("\n")
	}
	b.WriteString("# learned\n")
	for _, l := range v.Learned {
		fmt.Fprintf(&b, "%s%s via %s from %s", same, l.Prefix, model.Join(l.NextHops), model.Join(l.From))
		if l.Stale {
			b.WriteString(" stale")
		}
		b.WriteString("\n")
	}
	return b.String()
}

func total(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

// NFTText is the desired ruleset, and the chains of others that drop.
func (v View) NFTText() string {
	var b strings.Builder
	b.WriteString(v.State.Rules.String())
	for _, c := range v.Kernel.Chains {
		if c.Table == felix.TableName || c.Table == policy.TableName {
			continue
		}
		mark, policy := same, "accept"
		if c.Drops {
			mark, policy = trouble, "drop"
		}
		fmt.Fprintf(&b, "# %stable %s %s chain %s hook %s priority %d policy %s\n", mark, c.Family, c.Table, c.Name, c.Hook, c.Priority, policy)
	}
	return b.String()
}

// IPAMText is what the node's allocator holds.
func (v View) IPAMText() string {
	var b strings.Builder
	for _, k := range v.Blocks {
		fmt.Fprintf(&b, "block %s %s\n", k.CIDR, k.State)
	}
	if v.Others > 0 {
		fmt.Fprintf(&b, "%d blocks of other nodes, from which routes are computed\n", v.Others)
	}
	for _, p := range v.Borrowed {
		fmt.Fprintf(&b, "borrowed %s\n", p.Addr())
	}
	for _, e := range v.Endpoints {
		fmt.Fprintf(&b, "pod %s/%s %s dev %s\n", e.Namespace, e.Pod, model.Join(e.Addresses), e.HostInterface)
	}
	return b.String()
}

// ProblemsText has a line for each problem.
func (v View) ProblemsText() string {
	var b strings.Builder
	for _, w := range v.Waiting {
		fmt.Fprintf(&b, "waiting: %s\n", w)
	}
	for _, p := range v.Problems {
		fmt.Fprintf(&b, "%s\n", p)
	}
	if b.Len() == 0 {
		return "none\n"
	}
	return b.String()
}
