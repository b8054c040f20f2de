package validate

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Reasons of the problems found here.
const (
	ReasonUnknownName   = "UnknownName"   // something is referred to that does not exist
	ReasonInvalid       = "InvalidValue"  // a value that cannot be used
	ReasonNotHonoured   = "NotHonoured"   // a field that has no effect on this object
	ReasonSecretMissing = "SecretMissing" // a password that cannot be read
	ReasonConflict      = "Conflict"      // two objects want the same thing
)

// BGP finds what is wrong between the BGP objects of a snapshot, sorted by kind
// and name. A password counts as missing when its PasswordRef is not Known. nodes have
// seen those of the snapshot.
func BGP(s model.Snapshot, nodes *Nodes) []model.Problem {
	var out []model.Problem
	for i := range s.BGP {
		out = append(out, configuration(&s.BGP[i], nodes)...)
	}
	for i := range s.Filters {
		out = append(out, filter(&s.Filters[i], s)...)
	}
	first := map[session]string{}
	for i := range s.Peers {
		p := &s.Peers[i]
		key := session{p.PeerIP, p.PeerPort, p.Node, text(p.NodeSelector)}
		out = append(out, peer(p, s, nodes, first[key])...)
		if first[key] == "" {
			first[key] = p.Name
		}
	}
	return out
}

// notes collects problems of one object.
type notes struct {
	object   model.Ref
	problems []model.Problem
}

func (n *notes) add(field, reason, format string, args ...any) {
	n.problems = append(n.problems, model.Problem{Object: n.object, Field: field, Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func configuration(c *model.BGPConfiguration, nodes *Nodes) []model.Problem {
	n := &notes{object: model.Ref{Kind: "BGPConfiguration", Name: c.Name}}
	if name, ok := strings.CutPrefix(c.Name, "node."); ok {
		if !nodes.has(model.NodeName(name)) {
			n.add("metadata.name", ReasonUnknownName, "there is no node %s", name)
		}
	}
	n.password("spec.nodeMeshPassword", c.MeshPassword, "the sessions of the mesh are")
	for _, name := range slices.Sorted(maps.Keys(c.Communities)) {
		if err := Community(c.Communities[name]); err != nil {
			n.add("spec.communities", ReasonInvalid, "%s: %v", name, err)
		}
	}
	for i, p := range c.PrefixAdvertisements {
		for j, text := range p.Communities {
			if _, named := c.Communities[text]; !named && Community(text) != nil {
				n.add(fmt.Sprintf("spec.prefixAdvertisements[%d].communities[%d]", i, j), ReasonUnknownName,
					"%q is neither a name in spec.communities nor a community aa:nn or aa:nn:mm", text)
			}
		}
	}
	return n.problems
}

func (n *notes) password(field string, ref *model.PasswordRef, who string) {
	if ref != nil && !ref.Known {
		n.add(field+".secretKeyRef", ReasonSecretMissing,
			"key %q of Secret %s cannot be read in Muslin's namespace; %s withheld until it can", ref.Key, ref.SecretName, who)
	}
}

func filter(f *model.BGPFilter, s model.Snapshot) []model.Problem {
	n := &notes{object: model.Ref{Kind: "BGPFilter", Name: f.Name}}
	n.rules("spec.exportV4", f.ExportV4)
	n.rules("spec.importV4", f.ImportV4)
	n.rules("spec.exportV6", f.ExportV6)
	n.rules("spec.importV6", f.ImportV6)
	if f.Services != nil {
		n.byService(f, s)
	}
	return n.problems
}

// byService tells of what a filter asks of Services and cannot have: nothing beyond the
// ranges of BGPConfiguration "default" is announced.
func (n *notes) byService(f *model.BGPFilter, s model.Snapshot) {
	var ranges []netip.Prefix
	for i := range s.BGP {
		if c := &s.BGP[i]; c.Name == "default" {
			ranges = slices.Concat(c.ServiceClusterIPs, c.ServiceExternalIPs, c.ServiceLoadBalancers)
		}
	}
	if len(ranges) == 0 {
		n.add("metadata.annotations[muslin.io/service-selector]", ReasonNotHonoured,
			"BGPConfiguration default names no serviceLoadBalancerIPs, serviceExternalIPs or serviceClusterIPs: no Service is announced")
		return
	}
	for _, l := range []struct {
		key    string
		bits   int
		family model.Family
	}{{"muslin.io/aggregation-length", f.AggregationLength, model.IPv4}, {"muslin.io/aggregation-length-v6", f.AggregationLengthV6, model.IPv6}} {
		holds := func(p netip.Prefix) bool { return l.family.Has(p.Addr()) && p.Bits() <= l.bits }
		if l.bits > 0 && !slices.ContainsFunc(ranges, holds) {
			n.add("metadata.annotations["+l.key+"]", ReasonNotHonoured,
				"/%d reaches beyond every range of service addresses in BGPConfiguration default; addresses are announced one by one", l.bits)
		}
	}
}

func (n *notes) rules(field string, rules []model.FilterRule) {
	for i := range rules {
		r, at := &rules[i], fmt.Sprintf("%s[%d]", field, i)
		for _, c := range r.Communities {
			n.community(at+".communities", c)
		}
		for j, op := range r.Operations {
			if op.AddCommunity != "" {
				n.community(fmt.Sprintf("%s.operations[%d].addCommunity", at, j), op.AddCommunity)
			}
		}
		if r.MinLength != nil && r.MaxLength != nil && *r.MinLength > *r.MaxLength {
			n.add(at+".prefixLength", ReasonInvalid, "min %d is greater than max %d: the rule matches nothing", *r.MinLength, *r.MaxLength)
		}
		if matchesAll(r) && i < len(rules)-1 {
			n.add(fmt.Sprintf("%s[%d]", field, i+1), ReasonNotHonoured, "is never reached: rule %d matches every route", i)
		}
	}
}

func (n *notes) community(field, text string) {
	if err := Community(text); err != nil {
		n.add(field, ReasonInvalid, "%v", err)
	}
}

func matchesAll(r *model.FilterRule) bool {
	return !r.CIDR.IsValid() && r.Source == "" && r.Interface == "" && r.PeerType == "" &&
		len(r.Communities) == 0 && len(r.ASPathPrefix) == 0 && r.Priority == nil
}

// session is what two BGPPeers must not both ask for. Selectors are compared as text.
type session struct {
	addr     netip.Addr
	port     int
	node     model.NodeName
	selector string
}

// peer finds what is wrong with one; rival is another that asks for the same session.
func peer(p *model.BGPPeer, s model.Snapshot, nodes *Nodes, rival string) []model.Problem {
	n := &notes{object: model.Ref{Kind: "BGPPeer", Name: p.Name}}
	if p.Node != "" && !nodes.has(p.Node) {
		n.add("spec.node", ReasonUnknownName, "there is no node %s", p.Node)
	}
	if nodes.none(p.NodeSelector) {
		n.add("spec.nodeSelector", ReasonNoNode, "no node has such labels: nobody has the session")
	}
	if nodes.none(p.PeerSelector) {
		n.add("spec.peerSelector", ReasonNoNode, "no node has such labels: there is nobody to peer with")
	}
	for i, name := range p.Filters {
		if !slices.ContainsFunc(s.Filters, func(f model.BGPFilter) bool { return f.Name == name }) {
			n.add(fmt.Sprintf("spec.filters[%d]", i), ReasonUnknownName, "there is no BGPFilter %s that can be used", name)
		}
	}
	n.password("spec.password", p.Password, "the session is")
	if p.ReachableBy.IsValid() && p.PeerIP.IsValid() && p.ReachableBy.Is4() != p.PeerIP.Is4() {
		n.add("spec.reachableBy", ReasonInvalid, "%s is of another address family than peerIP %s", p.ReachableBy, p.PeerIP)
	}
	if rival != "" && p.PeerIP.IsValid() {
		n.add("spec.peerIP", ReasonConflict, "BGPPeer %s peers with %s from the same nodes; delete one of the two", rival, p.PeerIP)
	}
	return n.problems
}

func text(s model.Selector) string {
	if s == nil {
		return ""
	}
	return s.String()
}

// Community checks a standard community aa:nn of two 16-bit numbers (RFC 1997)
// or a large one aa:nn:mm of three 32-bit numbers (RFC 8092).
func Community(text string) error {
	parts := strings.Split(text, ":")
	bits := 16
	if len(parts) == 3 {
		bits = 32
	}
	ok := len(parts) == 2 || len(parts) == 3
	for _, p := range parts {
		if _, err := strconv.ParseUint(p, 10, bits); err != nil {
			ok = false
		}
	}
	if !ok {
		return fmt.Errorf("%q is not a community: want aa:nn of two 16-bit numbers or aa:nn:mm of three 32-bit numbers", text)
	}
	return nil
}
