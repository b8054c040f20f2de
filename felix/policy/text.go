package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// String gives the whole Program, one line for each endpoint, rule and member,
// sorted. It is what the goldens and the tools print.
func (p Program) String() string {
	var b strings.Builder
	if !p.Complete {
		b.WriteString("# not every source was heard yet: the kernel stays as it is\n")
	}
	if p.Unknown {
		b.WriteString("# a pod of the node is not known: it is closed\n")
	}
	b.WriteString(epochText(p.EpochMask))
	for _, name := range slices.Sorted(maps.Keys(p.Endpoints)) {
		b.WriteString("endpoint " + name + " " + p.Endpoints[name].String() + "\n")
	}
	for _, name := range p.sortedHosts() {
		b.WriteString("host " + name + " " + p.Hosts[name].String() + "\n")
	}
	for c := range p.Chains.All() {
		b.WriteString(c.String())
	}
	for s := range p.Sets.All() {
		b.WriteString(s.String())
	}
	return b.String()
}

// String gives "ingress i-… egress all".
func (e Endpoint) String() string {
	name := func(id ChainID) string {
		if id == "" {
			return "all"
		}
		return string(id)
	}
	return "ingress " + name(e.Ingress) + " egress " + name(e.Egress)
}

// String gives "input i-… output e-… forward-in all …".
func (h Host) String() string {
	var b strings.Builder
	for i, name := range []string{"input", "output", "forward-in", "forward-out", "pre-dnat", "untracked-in", "untracked-out"} {
		if id := h.chains()[i]; id != "" {
			b.WriteString(" " + name + " " + string(id))
		}
	}
	return cmp.Or(strings.TrimPrefix(b.String(), " "), "all")
}

// String gives the chain's name and its rules, indented.
func (c Chain) String() string {
	var b strings.Builder
	b.WriteString("chain " + string(c.ID) + "\n")
	for _, r := range c.Rules {
		b.WriteString("  " + r.String() + "\n")
	}
	return b.String()
}

// String gives the verdict as it is written in policies, in lower case.
func (v Verdict) String() string {
	switch v {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Pass:
		return "pass"
	case Log:
		return "log"
	case Continue:
		return "continue"
	}
	return "verdict " + strconv.Itoa(int(v))
}

// String gives match and verdict in one line, with the origin behind "#".
func (r Rule) String() string { return r.match() + r.verdict() + " # " + r.Origin.String() }

func (r Rule) verdict() string {
	if r.Verdict == Pass {
		return "pass " + string(r.Next)
	}
	return r.Verdict.String()
}

func (r Rule) match() string {
	var b strings.Builder
	if r.Family != 0 {
		fmt.Fprintf(&b, "ipv%d ", r.Family)
	}
	if r.Protocol != 0 {
		b.WriteString(protocolName(r.Protocol) + " ")
	}
	if r.NotProtocol != 0 {
		b.WriteString("not " + protocolName(r.NotProtocol) + " ")
	}
	b.WriteString(r.ICMP.text("") + r.NotICMP.text("not "))
	b.WriteString(r.Source.text("from"))
	b.WriteString(r.Destination.text("to"))
	return b.String()
}

func protocolName(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmpv6"
	case 132:
		return "sctp"
	case 136:
		return "udplite"
	}
	return "protocol " + strconv.Itoa(int(p))
}

func (i ICMP) text(not string) string {
	switch {
	case !i.Set:
		return ""
	case i.HasCode:
		return fmt.Sprintf("%stype %d code %d ", not, i.Type, i.Code)
	}
	return fmt.Sprintf("%stype %d ", not, i.Type)
}

func (s Side) text(word string) string {
	var b strings.Builder
	for _, id := range s.In {
		b.WriteString(word + " @" + string(id) + " ")
	}
	for _, id := range s.NotIn {
		b.WriteString("not " + word + " @" + string(id) + " ")
	}
	if len(s.Ports) > 0 {
		b.WriteString(word + " port " + ports(s.Ports) + " ")
	}
	if len(s.NotPorts) > 0 {
		b.WriteString("not " + word + " port " + ports(s.NotPorts) + " ")
	}
	return b.String()
}

func ports(in []PortRange) string {
	out := make([]string, len(in))
	for i, p := range in {
		out[i] = p.String()
	}
	return strings.Join(out, ",")
}

// String gives "80" or "80-90".
func (p PortRange) String() string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// String gives "default NetworkPolicy ns/name rule 0" or "default end".
func (o Origin) String() string {
	if o.Index < 0 {
		return o.Tier + " end"
	}
	return fmt.Sprintf("%s %s rule %d", o.Tier, o.Policy, o.Index)
}

// String gives the set's name, what it stands for, and its members, indented.
func (s Set) String() string {
	var b strings.Builder
	b.WriteString("set " + string(s.ID) + " # " + s.Name + "\n")
	for a := range s.Addresses.All() {
		b.WriteString("  " + a.String() + "\n")
	}
	for n := range s.Nets.All() {
		b.WriteString("  " + n.String() + "\n")
	}
	for p := range s.Ports.All() {
		b.WriteString("  " + p.String() + "\n")
	}
	return b.String()
}

// String gives "10.0.0.0-10.0.0.255".
func (r Range) String() string { return r.First.String() + "-" + r.Last.String() }

// String gives "10.0.0.1 tcp 80".
func (p AddrPort) String() string {
	return fmt.Sprintf("%s %s %d", p.Addr, protocolName(p.Protocol), p.Port)
}
