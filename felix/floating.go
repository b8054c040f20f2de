package felix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// annotationFloating asks for floating addresses of a pod (Calico's name).
const annotationFloating = "metadata.annotations[cni.projectcalico.org/floatingIPs]"

// FloatingIP is an address beside the pod's own by which it is reached.
type FloatingIP struct {
	Address netip.Addr
	Pod     netip.Addr // the pod's address of the same family
	Device  string     // the node's end of the pod's link
}

// floating are the floating addresses of this node's pods, if
// FelixConfiguration floatingIPs is Enabled. Whoever may annotate a pod chooses
// them: only an IPPool that is for that, and for the pod's namespace, makes one
// the pod's, and nobody's address is taken from him. Of two pods with the same one
// the older keeps it; on two nodes that is the one whose node announced it first.
func (c *builder) floating() []FloatingIP {
	owner := map[netip.Addr]string{}
	requested := map[netip.Addr]bool{}
	for _, e := range c.Endpoints {
		for _, a := range e.Addresses {
			owner[a] = e.Namespace + "/" + e.Pod
		}
		for _, a := range e.FloatingIPs {
			requested[a] = true
		}
	}
	if len(requested) == 0 {
		return nil
	}
	var out []FloatingIP
	held := c.holders()
	c.elsewhere(held, requested)
	for _, e := range c.Endpoints {
		for _, a := range e.FloatingIPs {
			if reason, why := c.mayFloat(a, e, owner[a], held); reason != "" {
				c.problem(model.Ref{Kind: "Pod", Namespace: e.Namespace, Name: e.Pod}, annotationFloating, reason, "floating address "+a.String()+" "+why)
				continue
			}
			owner[a] = e.Namespace + "/" + e.Pod
			out = append(out, FloatingIP{Address: a, Pod: ofFamily(e, a), Device: e.HostInterface})
		}
	}
	slices.SortFunc(out, func(a, b FloatingIP) int { return a.Address.Compare(b.Address) })
	return out
}

// elsewhere notes which of the addresses somebody else announces. What this node
// announces itself is not learned, unless another's is preferred.
func (c *builder) elsewhere(held holders, requested map[netip.Addr]bool) {
	for _, l := range c.Learned {
		a := l.Prefix.Addr()
		if !l.Prefix.IsSingleIP() || !requested[a] || held.one[a] != "" {
			continue
		}
		for _, hop := range l.NextHops {
			if c.own[hop.Unmap().WithZone("")] {
				continue // our own, come back
			}
			by := "router " + hop.String()
			if n, ok := c.nodes[hop.Unmap()]; ok {
				by = "node " + string(n.Name)
			}
			held.one[a] = "announced by " + by + ", and comes to this pod when it no longer is"
			break
		}
	}
}

// ofFamily is the pod's address of the family of another; the zero value without
// one.
func ofFamily(e model.Endpoint, a netip.Addr) netip.Addr {
	for _, own := range e.Addresses {
		if own.Is4() == a.Is4() {
			return own
		}
	}
	return netip.Addr{}
}

// mayFloat says why a pod cannot have a floating address; no reason: it can.
func (c *builder) mayFloat(a netip.Addr, e model.Endpoint, taken string, held holders) (reason, why string) {
	const remedy = "has no effect: "
	switch whose := held.of(a); {
	case !c.config.FloatingIPs:
		return "FloatingIPsDisabled", remedy + "set floatingIPs of FelixConfiguration default to Enabled"
	case !ofFamily(e, a).IsValid():
		return "NoAddressOfFamily", remedy + "the pod has no address of its family"
	case taken != "":
		return "AddressInUse", "is an address of pod " + taken + ", which keeps it"
	case whose != "":
		return "AddressInUse", remedy + "it is " + whose
	}
	for _, b := range c.Snapshot.Blocks {
		if b.CIDR.Contains(a) && b.Node != c.Self {
			return "AddressInUse", remedy + "it lies in block " + b.CIDR.String() + " of node " + string(b.Node) + ", from which pods have their addresses"
		}
	}
	var pools prefixSet
	for i, p := range c.Snapshot.Pools {
		pools.add(p.CIDR, i)
	}
	_, i, inPool := pools.covering(hostPrefix(a))
	if !inPool {
		return "OutsidePools", remedy + "it is in no IPPool; make a pool for it, with assignmentMode Manual"
	}
	switch p := c.Snapshot.Pools[i]; {
	case !p.Manual || len(p.AllowedUses) > 0 && !slices.Contains(p.AllowedUses, model.UseWorkload):
		return "PoolUnusable", remedy + "IPPool " + p.Name + " is not for it: its assignmentMode must be Manual and its allowedUses have Workload"
	case p.NamespaceSelector != nil && !p.NamespaceSelector.Matches(c.Snapshot.Namespaces[e.Namespace]):
		return "PoolUnusable", remedy + "namespaceSelector " + p.NamespaceSelector.String() + " of IPPool " + p.Name + " does not select namespace " + e.Namespace
	}
	return "", ""
}

// floatingRoutes lead to the pods, too, as in Calico. Packets do not follow
// them, since their destination is rewritten before: they say, to people and to
// other routers of the node, that the address is here.
func (c *builder) floatingRoutes() []Route {
	var out []Route
	for _, f := range c.floats {
		if l, ok := c.names[f.Device]; ok && l.AdminUp {
			out = append(out, Route{
				Prefix: hostPrefix(f.Address), Metric: DefaultRouteMetric,
				NextHopGroup: &NextHopGroup{LinkScope: f.Address.Is4(), NextHops: []NextHop{{Link: l.Index, Device: l.Name}}},
			})
		}
	}
	return out
}

// Floating is the part of the rules that rewrites destinations.
type Floating struct {
	Enabled bool
	IPs     []FloatingIP // sorted by address
}

// Announced are the floating addresses as host prefixes, which BGP has to tell of.
func (f Floating) Announced() []netip.Prefix {
	var out []netip.Prefix
	for _, ip := range f.IPs {
		out = append(out, hostPrefix(ip.Address))
	}
	return out
}

// Self pairs each pod address with the floating address that the pod sees when
// it talks to itself by one: the first of them.
func (f Floating) Self() []FloatingIP {
	seen := map[netip.Addr]bool{}
	var out []FloatingIP
	for _, ip := range f.IPs {
		if !seen[ip.Pod] {
			seen[ip.Pod] = true
			out = append(out, ip)
		}
	}
	return out
}

func (f Floating) sets(b *strings.Builder) {
	if !f.Enabled {
		return
	}
	for _, family := range model.Families {
		var to, self []string
		for _, ip := range f.IPs {
			if family.Has(ip.Address) {
				to = append(to, ip.Address.String()+" : "+ip.Pod.String())
			}
		}
		for _, ip := range f.Self() {
			if family.Has(ip.Address) {
				self = append(self, ip.Pod.String()+" . "+ip.Pod.String()+" : "+ip.Address.String())
			}
		}
		kind := addrType(family)
		writeMap(b, fmt.Sprintf("floating%d", family), kind+" : "+kind, to)
		writeMap(b, fmt.Sprintf("floating-self%d", family), kind+" . "+kind+" : "+kind, self)
	}
}

func writeMap(b *strings.Builder, name, kind string, elements []string) {
	fmt.Fprintf(b, "\tmap %s {\n\t\ttype %s\n", name, kind)
	if len(elements) > 0 {
		b.WriteString("\t\telements = { " + strings.Join(elements, ", ") + " }\n")
	}
	b.WriteString("\t}\n")
}

func (f Floating) rules(b *strings.Builder) {
	if !f.Enabled {
		return
	}
	for _, hook := range []string{"prerouting", "output"} {
		fmt.Fprintf(b, "\tchain floating-%s {\n\t\ttype nat hook %s priority %d; policy accept;\n"+
			"\t\tdnat ip to ip daddr map @floating4\n\t\tdnat ip6 to ip6 daddr map @floating6\n\t}\n", hook, hook, PriorityFloat)
	}
}
