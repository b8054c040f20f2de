package bgp

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/muslin-net/muslin/pkg/model"
)

// Desired computes what the node self is to say and to whom. What could not be
// honoured comes back as problems, sorted; everything else is in force. A node
// that the snapshot does not hold, or that has no address, gives a Config with
// ASN 0.
//
// Nothing is known of the node's interfaces: rules of BGPFilters that name one
// match no route. DesiredOn is for whoever can ask the node.
func Desired(snap model.Snapshot, self model.NodeName) (Config, []model.Problem) {
	return DesiredOn(snap, self, FIB{})
}

// DesiredOn is Desired on a node with these ways.
func DesiredOn(snap model.Snapshot, self model.NodeName, fib FIB) (Config, []model.Problem) {
	b := newBuilder(snap, self)
	if b == nil {
		return Config{}, []model.Problem{{
			Object: model.Ref{Kind: "Node", Name: string(self)}, Reason: "NoAddress",
			Message: "the node is not known or has no address yet, so BGP does not start on it",
		}}
	}
	c := Config{
		ASN:        b.asn,
		RouterID:   routerID(b.node),
		ListenPort: b.listenPort(self),
		Listen:     b.listenAddresses(),
		MaxPaths:   b.maxPaths(),
		NoInstall:  b.serviceRanges(),
		Blocks:     b.blockRanges(),
		Origins:    b.origins(),
		Paths:      b.paths(),
	}
	b.addrs = fib.addrs
	c.Peers = b.peers()
	b.fib, b.unnumbered = fibToPeers(fib, c.Peers), unnumbered(c.Peers)
	for _, p := range c.Peers {
		if p.IsPod() {
			b.pods = append(b.pods, p.Address)
		}
	}
	findLinks(fib, c.Peers)
	for i := range c.Peers {
		b.attachPolicies(&c.Peers[i], c.Paths)
	}
	c.Policies = b.policyList()
	b.confusable(c.Peers)
	b.sameRouterID()
	slices.SortFunc(b.problems, compareProblems)
	return c, slices.CompactFunc(b.problems, func(x, y model.Problem) bool { return compareProblems(x, y) == 0 })
}

// builder carries what the parts of Desired share.
type builder struct {
	addrs    []netip.Addr // see Ways
	snap     model.Snapshot
	node     model.Node
	asn      model.ASN
	defaults model.BGPConfiguration // "default"
	own      model.BGPConfiguration // "node.<self>"
	filters  map[string]model.BGPFilter
	external map[model.NodeName]bool // nodes with an explicit peer outside the cluster
	fib      FIB
	// interfaces tells that some filter in force names an interface.
	interfaces bool
	// unnumbered are the peers with a link-local address.
	unnumbered []netip.Addr
	pods       []netip.Addr          // of this node, that speak BGP
	inMesh     []netip.Addr          // see meshNodes
	nodesTell  []Rule                // see nodeRules
	nodeHosts  []PrefixRange         // see nodeAddresses
	ending     map[netip.Prefix]bool // own paths that are the last resort
	policies   []Policy
	problems   []model.Problem
	anywhere   bool // see Misread
}

func newBuilder(snap model.Snapshot, self model.NodeName) *builder {
	b := &builder{snap: snap, filters: map[string]model.BGPFilter{}, ending: map[netip.Prefix]bool{}}
	var found bool
	if b.node, found = snap.Node(self); !found || !b.node.IPv4.IsValid() && !b.node.IPv6.IsValid() {
		return nil
	}
	for _, c := range snap.BGP {
		switch c.Name {
		case "default":
			b.defaults = c
		case nodeConfigName(self):
			b.own = c
		}
	}
	for _, f := range snap.Filters {
		b.filters[f.Name] = f
	}
	b.asn = b.asnOf(b.node)
	b.interfaces = asksForInterfaces(snap)
	b.external = b.nodesWithExternalPeers()
	return b
}

// LogSeverity is the node's logSeverityScreen, else the cluster's; empty when
// neither is set.
func LogSeverity(snap model.Snapshot, self model.NodeName) (severity string) {
	for _, c := range snap.BGP {
		if c.LogSeverity != "" && (c.Name == nodeConfigName(self) || c.Name == "default" && severity == "") {
			severity = c.LogSeverity
		}
	}
	return severity
}

func nodeConfigName(n model.NodeName) string { return "node." + string(n) }

func (b *builder) problem(o model.Ref, field, reason, format string, args ...any) {
	b.problems = append(b.problems, model.Problem{
		Object: o, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...),
	})
}

func compareProblems(x, y model.Problem) int {
	return cmp.Or(
		cmp.Compare(x.Object.Kind, y.Object.Kind), cmp.Compare(x.Object.Namespace, y.Object.Namespace),
		cmp.Compare(x.Object.Name, y.Object.Name), cmp.Compare(x.Field, y.Field),
		cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Message, y.Message))
}
