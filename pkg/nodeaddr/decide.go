package nodeaddr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// Input is what the node's own agent knows.
type Input struct {
	Node    model.Node
	Nodes   []model.Node      // all of the cluster
	Cluster map[string]string // annotations of BGPConfiguration default
	Host    model.Host
	// Writer tells who wrote an annotation that has no mark: the field manager,
	// empty when nobody knows. It is asked only then.
	Writer func(annotation, value string) string
}

// Decision is what should stand on the Node.
type Decision struct {
	Annotations map[string]string // to be written; an empty value removes one
	Problems    []model.Problem
}

// Decide compares what the Node says with what the kernel has.
func Decide(in Input) Decision {
	d := decider{Input: in, Decision: Decision{Annotations: map[string]string{}}}
	for _, f := range Families {
		d.family(f)
	}
	return d.Decision
}

type decider struct {
	Input
	Decision
}

func (d *decider) family(f Family) {
	value, mark := d.Node.Annotations[f.Address], d.Node.Annotations[f.Mark]
	annotated, err := parse(value)
	if err != nil || annotated.IsValid() && !f.Has(annotated.Addr()) {
		return // told by whoever reads the Node, and not ours to replace
	}
	d.taken(f, d.Node.Subnet(f.Family))
	m, where, err := d.method(f)
	switch {
	case value != "" && !d.agents(f, value, mark, m):
		d.persons(f, value, annotated, mark)
	case err != nil:
		// What was detected last stays: a slip of the pen moves no node. Whoever
		// reads the object tells of it.
		if value == "" {
			d.detected(f, Method{}, where, value, annotated)
		}
	default:
		d.detected(f, m, where, value, annotated)
	}
}

// method is what the Node asks for, else what the cluster does; where is the
// object that says so.
func (d *decider) method(f Family) (Method, model.Ref, error) {
	text, where := d.Node.Annotations[f.Method], d.self()
	if text == "" {
		if text = d.Cluster[f.Method]; text != "" {
			where = model.Ref{Kind: "BGPConfiguration", Name: "default"}
		}
	}
	m, err := ParseMethod(text)
	return m, where, err
}

// agents tells whether an agent wrote the annotation. One without a mark is of
// a release before marks, or of Calico's: then the field manager decides, and
// where there is none, whether it says what detection says.
func (d *decider) agents(f Family, value, mark string, m Method) bool {
	if mark != "" {
		_, ok := MarkedBy(mark, value)
		return ok
	}
	switch d.Writer(f.Address, value) {
	case "muslin-agent":
		return true
	case "", "calico-node":
		found := d.find(f, m, netip.Addr{})
		return found.IsValid() && found.String() == value
	}
	return false
}

// persons leaves an address alone that somebody chose, and says when the node
// does not have it.
func (d *decider) persons(f Family, value string, annotated netip.Prefix, mark string) {
	if mark != "" {
		d.Annotations[f.Mark] = ""
	}
	have := OnHost(d.Host, annotated.Addr())
	if !have.IsValid() {
		d.problem(f.Address, "AddressAbsent", "%s is on no interface of node %s: set an address that the node has, or remove the annotation, and it is detected", annotated.Addr(), d.Node.Name)
	} else if !strings.Contains(value, "/") {
		d.Annotations[f.Address] = have.String()
	}
}

// detected brings what the agent wrote to what it finds now.
func (d *decider) detected(f Family, m Method, where model.Ref, value string, annotated netip.Prefix) {
	found := d.find(f, m, annotated.Addr())
	internal := ofFamily(f, d.Node.InternalIPs)
	switch {
	case found.IsValid():
		d.write(f, m, value, found)
	case m.find != nil:
		d.Problems = append(d.Problems, model.Problem{
			Object: where, Field: field(f.Method), Reason: "AddressNotFound",
			Message: fmt.Sprintf("%s finds no %s address on node %s; %s", m, f.Family, d.Node.Name, stays(d.Node.Subnet(f.Family))),
		})
	case len(internal) > 0:
		d.Problems = append(d.Problems, model.Problem{
			Object: d.self(), Field: "status.addresses", Reason: "AddressAbsent",
			Message: fmt.Sprintf("the InternalIP %s is on no interface of node %s%s: give the node that address, kubelet another --node-ip, or set the annotation %s", internal[0], d.Node.Name, beside(value), f.Address),
		})
	case value != "" && !OnHost(d.Host, annotated.Addr()).IsValid():
		// Neither kubelet nor the kernel knows the address any more.
		d.Annotations[f.Address], d.Annotations[f.Mark] = "", ""
	}
}

func (d *decider) write(f Family, m Method, value string, found netip.Prefix) {
	text := found.String()
	if value == text && d.Node.Annotations[f.Mark] == mark(m, text) {
		return
	}
	d.Annotations[f.Address], d.Annotations[f.Mark] = text, mark(m, text)
	if value != "" && value != text {
		d.problem(f.Address, "AddressMoves", "the address of node %s moves from %s to %s, as %s says", d.Node.Name, value, text, m)
	}
}

// find is what the method finds. Among several InternalIPs the one that stands
// is kept, so that their order does not matter.
func (d *decider) find(f Family, m Method, stands netip.Addr) netip.Prefix {
	if m.find != nil {
		return m.find(d.Host, f.Family)
	}
	internal := ofFamily(f, d.Node.InternalIPs)
	if contains(internal, stands) {
		internal = append([]netip.Addr{stands}, internal...)
	}
	for _, a := range internal {
		if p := OnHost(d.Host, a); p.IsValid() {
			return p
		}
	}
	return netip.Prefix{}
}

// taken tells of a node with the same address: sessions and tunnels to the two
// cannot be told apart.
func (d *decider) taken(f Family, own netip.Prefix) {
	for _, n := range d.Nodes {
		if n.Name != d.Node.Name && own.IsValid() && n.Subnet(f.Family).Addr() == own.Addr() {
			d.problem(f.Address, "AddressTwice", "nodes %s and %s both have the address %s: see the InternalIP and the annotation of each", d.Node.Name, n.Name, own.Addr())
		}
	}
}

func (d *decider) self() model.Ref { return model.Ref{Kind: "Node", Name: string(d.Node.Name)} }

func (d *decider) problem(annotation, reason, format string, args ...any) {
	d.Problems = append(d.Problems, model.Problem{Object: d.self(), Field: field(annotation), Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// Missing tells of pools that the node takes part in and has no address of the
// family of: its blocks would have no next hop, and it gives its pods none.
func Missing(n model.Node, pools []model.Pool, blocks []model.Block) (out []model.Problem) {
	for _, f := range Families {
		pool := slices.IndexFunc(pools, func(p model.Pool) bool {
			return f.Has(p.CIDR.Addr()) && !p.Disabled && (p.NodeSelector == nil || p.NodeSelector.Matches(n.Labels))
		})
		var own []string
		for _, b := range blocks {
			if b.Node == n.Name && f.Has(b.CIDR.Addr()) {
				own = append(own, b.CIDR.String())
			}
		}
		if n.Subnet(f.Family).IsValid() || pool < 0 && len(own) == 0 {
			continue
		}
		what := "it announces none of its pods' addresses"
		switch {
		case len(own) > 0:
			what = "its block " + strings.Join(own, ", ") + " is not announced"
		case n.IPv4.IsValid() || n.IPv6.IsValid():
			what = "its pods get none of IPPool " + pools[pool].Name
		}
		out = append(out, model.Problem{
			Object: model.Ref{Kind: "Node", Name: string(n.Name)}, Field: "status.addresses", Reason: "NoAddressOfFamily",
			Message: fmt.Sprintf("node %s has no %s address; %s: give kubelet a --node-ip of that family, or set the annotation %s or %s", n.Name, f.Family, what, f.Address, f.Method),
		})
	}
	return out
}

func stays(p netip.Prefix) string {
	if !p.IsValid() {
		return "it has none"
	}
	return p.Addr().String() + " stays its address"
}

func beside(value string) string {
	if value == "" {
		return ""
	}
	return ", which had " + value
}

func field(annotation string) string { return "metadata.annotations[" + annotation + "]" }

// parse reads "a.b.c.d/n" or "a.b.c.d"; empty text is the zero value.
func parse(text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return p, nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	return netip.PrefixFrom(a.Unmap(), a.Unmap().BitLen()), nil
}

// Unreachable tells whether a node has an address, but none of this family: no
// other node could be told a next hop for its blocks.
func Unreachable(self model.Node, f model.Family) bool {
	return len(self.Subnets()) > 0 && !self.Address(f).IsValid()
}
