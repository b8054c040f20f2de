package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/muslin-net/muslin/felix/nodeview"
	"github.com/muslin-net/muslin/felix/policy"
	"github.com/muslin-net/muslin/pkg/model"
)

// End is one end of a connection.
type End struct {
	Addr netip.Addr
	Pod  *Pod // nil: no pod with an address of its own
}

func (e End) String() string {
	if e.Pod == nil {
		return e.Addr.String()
	}
	return "Pod " + e.Pod.Namespace + "/" + e.Pod.Name + " (" + e.Addr.String() + ")"
}

// Evaluation is what network policy does between two ends, out of the objects.
type Evaluation struct {
	From, To End
	program  policy.Program
	sides    []*side // of the ends that are judged: egress, ingress
}

// side is one end in the direction that matters.
type side struct {
	name  string // egress, ingress
	end   End
	at    policy.Endpoint
	known bool
	by    []model.Policy // that select the pod in that direction, in order
}

// Evaluate compiles the policies for both ends, as the agents of their nodes do. What
// a pod sends to itself, and what a node sends to its own pods, is not judged.
func Evaluate(view model.PolicyView, nodes []model.Node, from, to End) Evaluation {
	j := Evaluation{From: from, To: to}
	if from.Pod != nil && to.Pod != nil && *from.Pod == *to.Pod {
		return j
	}
	own := from.Pod == nil && to.Pod != nil && isOf(nodes, to.Pod.Node, from.Addr)
	in := policy.Input{View: view, EndpointsSynced: true}
	for _, s := range []*side{{name: "egress", end: from}, {name: "ingress", end: to}} {
		if s.end.Pod != nil && !own {
			j.sides = append(j.sides, s)
			in.Endpoints = append(in.Endpoints, model.Endpoint{Namespace: s.end.Pod.Namespace, Pod: s.end.Pod.Name, HostInterface: s.name, Addresses: []netip.Addr{s.end.Addr}})
		}
	}
	j.program, _ = policy.Compile(in)
	for _, s := range j.sides {
		s.at, s.known = j.program.Endpoints[s.name]
		for _, p := range policy.Selecting(in, s.end.Pod.Namespace, s.end.Pod.Name) {
			if p.Ingress && s.name == "ingress" || p.Egress && s.name == "egress" {
				s.by = append(s.by, p)
			}
		}
	}
	return j
}

// isOf reports whether a node has an address.
func isOf(nodes []model.Node, name model.NodeName, a netip.Addr) bool {
	return slices.ContainsFunc(nodes, func(n model.Node) bool {
		return n.Name == name && slices.Contains(append(n.Addresses(), n.InternalIPs...), a)
	})
}

// chain is that of the direction that matters.
func (s *side) chain() policy.ChainID {
	if s.name == "egress" {
		return s.at.Egress
	}
	return s.at.Ingress
}

// decision is what becomes of a packet at one end.
type decision struct {
	allowed bool
	text    string
	object  string // what to change, of one that is not allowed
}

func (j *Evaluation) decide(s *side, k policy.Packet) decision {
	if !s.known {
		return decision{false, s.end.String() + " or its namespace is not known to network policy: everything is dropped", s.end.String()}
	}
	rules := j.program.Decide(s.chain(), k)
	if len(rules) == 0 {
		return decision{true, fmt.Sprintf("no policy selects %s for %s: everything is allowed", s.end, s.name), ""}
	}
	var text []string
	for _, r := range rules {
		text = append(text, s.stated(r))
	}
	last := rules[len(rules)-1]
	object := s.field(last.Origin)
	if last.Origin.Index < 0 {
		object = s.selecting(last.Origin.Tier) + ": spec." + s.name
	}
	return decision{policy.Allowed(rules), strings.Join(text, "; "), object}
}

// stated is what one rule does, for people.
func (s *side) stated(r policy.Rule) string {
	does := map[policy.Verdict]string{policy.Allow: "allows", policy.Deny: "drops", policy.Pass: "passes to the next tier"}[r.Verdict]
	if r.Origin.Index < 0 {
		return fmt.Sprintf("tier %s: no rule of %s matches: the end of the tier %s", r.Origin.Tier, s.selecting(r.Origin.Tier), does)
	}
	return fmt.Sprintf("tier %s: %s %s", r.Origin.Tier, s.field(r.Origin), does)
}

// field names a rule as it stands in its object.
func (s *side) field(o policy.Origin) string {
	return fmt.Sprintf("%s: spec.%s[%d]", o.Policy, s.name, o.Index)
}

// selecting lists the policies of a tier that select the pod.
func (s *side) selecting(tier string) string {
	var out []string
	for _, p := range s.by {
		if p.Tier == tier {
			out = append(out, p.Object.String())
		}
	}
	return strings.Join(out, ", ")
}

// Echo is the packet that asks an address for an answer.
func Echo(from, to netip.Addr) policy.Packet {
	if to.Is4() {
		return policy.Packet{Source: from, Destination: to, Protocol: 1, ICMPType: 8}
	}
	return policy.Packet{Source: from, Destination: to, Protocol: 58, ICMPType: 128}
}

// denied gives the first end that drops a packet.
func (j *Evaluation) denied(k policy.Packet) (*side, decision) {
	for _, s := range j.sides {
		if d := j.decide(s, k); !d.allowed {
			return s, d
		}
	}
	return nil, decision{}
}

// passes names the protocols of which both ends let something through.
func (j *Evaluation) passes() []string {
	var out []string
	ports := j.ports()
	for _, p := range []struct {
		name     string
		protocol uint8
	}{{"icmp", 0}, {"tcp", 6}, {"udp", 17}, {"sctp", 132}} {
		requested, passed := 0, 0
		for _, port := range ports {
			k := policy.Packet{Source: j.From.Addr, Destination: j.To.Addr, Protocol: p.protocol, SourcePort: 49152, DestinationPort: port}
			if p.protocol == 0 {
				k = Echo(j.From.Addr, j.To.Addr)
			}
			requested++
			if s, _ := j.denied(k); s == nil {
				passed++
			}
		}
		switch passed {
		case 0:
		case requested:
			out = append(out, p.name)
		default:
			out = append(out, p.name+" to some ports")
		}
	}
	return out
}

// ports are those between which no rule tells a difference.
func (j *Evaluation) ports() []uint16 {
	set := map[uint16]bool{1: true, 65535: true}
	add := func(ranges []policy.PortRange) {
		for _, r := range ranges {
			set[r.First], set[r.First-1], set[r.Last], set[r.Last+1] = true, true, true, true
		}
	}
	for c := range j.program.Chains.All() {
		for _, r := range c.Rules {
			add(r.Destination.Ports)
			add(r.Destination.NotPorts)
		}
	}
	for s := range j.program.Sets.All() {
		for p := range s.Ports.All() {
			if p.Addr == j.To.Addr {
				add([]policy.PortRange{{First: p.Port, Last: p.Port}})
			}
		}
	}
	delete(set, 0) // nobody's
	return slices.Sorted(maps.Keys(set))
}

const allowIt = "allow it by a rule there, or by a policy that is looked at before"

// TellPolicy says what decides about a packet at each end, and whether the nodes'
// kernels were told so. agents answers for a node; an agent that does not is named.
func TellPolicy(j Evaluation, k policy.Packet, agents func(model.NodeName) (*nodeview.View, string)) Story {
	t := &builder{story: Story{To: j.To.Addr, From: j.From.String() + ", " + described(k), Good: "allowed by policy"}}
	if len(j.sides) == 0 {
		t.ok("policy", "nothing is judged: neither end is a pod that policies select, or a pod talks to itself, or a node to its own pod")
	}
	var broken []func()
	for _, s := range j.sides {
		d := j.decide(s, k)
		t.story.Steps = append(t.story.Steps, Step{s.name, d.allowed, d.text})
		if !d.allowed {
			broken = append(broken, func() { t.blame(PolicyDenies, d.object, allowIt) })
		}
		if reported, ok := j.reported(s, agents); ok {
			t.ok("kernel", "%s", reported)
		} else {
			node := string(s.end.Pod.Node)
			t.story.Steps = append(t.story.Steps, Step{"kernel", false, reported})
			broken = append(broken, func() {
				t.blame(NotInstalled, "table inet muslin-policy of node "+node, "see muslinctl node show "+node+" policy and problems, and the agent's log")
			})
		}
	}
	if len(broken) > 0 {
		broken[0]()
	}
	return t.story
}

func described(k policy.Packet) string {
	if k.Protocol == 1 || k.Protocol == 58 {
		return "ICMP echo"
	}
	return map[uint8]string{6: "TCP", 17: "UDP", 132: "SCTP"}[k.Protocol] + " port " + strconv.Itoa(int(k.DestinationPort))
}

// reported compares the chain with the one that the agent of the pod's node gave its
// kernel, and the rules of both.
func (j *Evaluation) reported(s *side, agents func(model.NodeName) (*nodeview.View, string)) (text string, ok bool) {
	node := s.end.Pod.Node
	v, why := agents(node)
	if v == nil {
		return "not compared: " + why, true
	}
	want := nameOf(s.chain())
	for _, e := range v.Endpoints {
		if e.Namespace != s.end.Pod.Namespace || e.Pod != s.end.Pod.Name {
			continue
		}
		have := reportedChain(v.Policy, e.HostInterface, s.name)
		switch {
		case have == want && !slices.Equal(rulesOf(v.Policy, have), rulesOf(j.program.String(), want)):
			return fmt.Sprintf("node %s was told other rules of %s, for %s of %s, than the objects say", node, have, s.name, e.HostInterface), false
		case have == want:
			return fmt.Sprintf("node %s was told the same: %s of %s is %s", node, s.name, e.HostInterface, have), true
		case have == "":
			return fmt.Sprintf("node %s knows no policy for %s: it is closed, or the agent has not heard everything yet", node, e.HostInterface), false
		}
		return fmt.Sprintf("node %s was told %s for %s of %s, and the objects say %s", node, have, s.name, e.HostInterface, want), false
	}
	return fmt.Sprintf("node %s knows no interface of the pod", node), false
}

// nameOf names a chain as the text of a Program does.
func nameOf(id policy.ChainID) string {
	if id == "" {
		return "all"
	}
	return string(id)
}

// rulesOf gives the rules of a chain, and of those that it passes on to, of the text of a Program.
func rulesOf(program, id string) []string {
	var rules []string
	_, text, _ := strings.Cut("\n"+program, "\nchain "+id+"\n")
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "  ") {
			break
		}
		rules = append(rules, line)
		match, _, _ := strings.Cut(line, " # ")
		if f := strings.Fields(match); len(f) > 1 && f[len(f)-2] == "pass" {
			rules = append(rules, rulesOf(program, f[len(f)-1])...)
		}
	}
	return rules
}

// reportedChain finds a chain in the text of a Program: "endpoint IF ingress A egress B".
func reportedChain(program, device, direction string) string {
	for line := range strings.Lines(program) {
		f := strings.Fields(line)
		if len(f) != 6 || f[0] != "endpoint" || f[1] != device {
			continue
		}
		if direction == "ingress" {
			return f[3]
		}
		return f[5]
	}
	return ""
}
