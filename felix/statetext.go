package felix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/muslin-net/muslin/pkg/model"
)

// String gives the whole State: routes as `ip route` shows them, sysctls as
// sysctl.conf has them, rules as `nft -f` reads them. It is what the goldens and
// `muslinctl node show` print.
func (s State) String() string {
	var b strings.Builder
	section := func(name string) { b.WriteString("# " + name + "\n") }
	section("routes")
	for _, r := range s.Routes {
		b.WriteString(r.String() + s.Origin(r.Prefix) + "\n")
	}
	if len(s.External) > 0 {
		section("routes of others that go")
		for _, r := range s.External {
			b.WriteString(r.String() + "\n")
		}
	}
	if len(s.Tunnels) > 0 {
		section("tunnels")
		for _, t := range s.Tunnels {
			b.WriteString(t.String())
		}
	}
	if len(s.Sysctls) > 0 {
		section("sysctls")
		for _, c := range s.Sysctls {
			b.WriteString(c.String() + "\n")
		}
	}
	if s.Refresh > 0 {
		fmt.Fprintf(&b, "# routes are read again every %s\n", s.Refresh)
	}
	section("links")
	fmt.Fprintf(&b, "pod mtu %d\n", s.MTU.Pod)
	for _, p := range s.Pods {
		b.WriteString(p.String() + "\n")
	}
	for _, l := range s.Advertised {
		b.WriteString(l.Device + ": router advertisements\n")
	}
	section("rules")
	b.WriteString(s.Rules.String())
	if !s.Prune {
		b.WriteString("# not every source was heard yet: nothing is deleted\n")
	}
	return b.String()
}

// Origin gives " # from IPAM" for the prefix of a route that BGP has not learned,
// and nothing for others.
func (s State) Origin(p netip.Prefix) string {
	if s.Computed(p) {
		return " # from IPAM"
	}
	return ""
}

// Computed reports whether the route to p is from IPAM and not from BGP.
func (s State) Computed(p netip.Prefix) bool {
	_, ok := slices.BinarySearchFunc(s.ByIPAM, p, ComparePrefix)
	return ok
}

// String gives "net.ipv4.ip_forward = 1".
func (s Sysctl) String() string {
	text := strings.ReplaceAll(s.Key, "/", ".") + " = " + s.Value
	if s.If != "" {
		text += " # where it is " + s.If
	}
	return text
}

// String gives the route as `ip route` shows it, with the number of its
// protocol.
func (r ExternalRoute) String() string {
	return fmt.Sprintf("%s dev %s proto %d metric %d", r.Prefix, r.Device, r.Protocol, r.Metric)
}

// String gives what the link has to have.
func (p PodLink) String() string {
	var b strings.Builder
	b.WriteString(p.Device + ": up")
	if p.Gateway.IsValid() {
		b.WriteString(" address " + p.Gateway.String())
	}
	for _, a := range p.Peering {
		b.WriteString(" peering " + a.String())
	}
	for _, a := range p.Addresses {
		b.WriteString(" neigh " + a.String())
	}
	if len(p.Addresses) > 0 && p.MAC != "" {
		b.WriteString(" lladdr " + p.MAC)
	}
	if p.AnySource {
		b.WriteString(" rp_filter 0")
	}
	if p.MTU > 0 {
		fmt.Fprintf(&b, " mtu %d", p.MTU)
	}
	return b.String()
}

// String gives the device as `ip link` shows it, and its peers.
func (t Tunnel) String() string {
	var b strings.Builder
	switch t.Kind {
	case IPIP:
		fmt.Fprintf(&b, "%s: ipip address %s local %s mtu %d\n", t.Name, t.Address, t.Local, t.MTU)
	default:
		fmt.Fprintf(&b, "%s: vxlan id %d address %s local %s parent %d dstport %d mtu %d lladdr %s\n",
			t.Name, t.VNI, t.Address, t.Local, t.Parent, t.Port, t.MTU, t.MAC)
	}
	for _, p := range t.Peers {
		fmt.Fprintf(&b, "\tpeer %s lladdr %s dst %s\n", p.Address, p.MAC, p.Node)
	}
	return b.String()
}

// TableName is the nftables table of the inet family that is all Muslin's.
const TableName = "muslin"

// Priorities of the chains. The pods' check comes before connection tracking is
// requested for anything but defragmentation; the
// masquerading right after kube-proxy's (srcnat, 100), so that its marks are
// honoured first; floating addresses right before its services (dstnat, -100).
const (
	PriorityPods     = -300 // raw
	PriorityFilter   = 0    // filter
	PriorityServices = 99   // srcnat - 1
	PriorityNAT      = 101  // srcnat + 1
	PriorityFloat    = -101 // dstnat - 1: a floating address is no service
)

// String gives the rules as `nft -f` reads them. It is the second opinion on
// what felix/nft writes: both must give the same ruleset in the kernel.
func (r Ruleset) String() string {
	var b strings.Builder
	b.WriteString("table inet " + TableName + " {\n")
	r.NAT.sets(&b)
	r.SourceCheck.sets(&b)
	r.Tunnels.sets(&b)
	r.Services.sets(&b)
	r.Floating.sets(&b)
	r.fromPod(&b)
	r.input(&b)
	r.Services.rules(&b)
	r.Floating.rules(&b)
	r.postrouting(&b)
	b.WriteString("}\n")
	return b.String()
}

// addrType and header are what nft calls the addresses and the header of a family.
func addrType(f model.Family) string { return f.Lower() + "_addr" }
func header(f model.Family) string   { return model.OfFamily(f, "ip", "ip6") }

func writeSet(b *strings.Builder, name, kind, flags string, elements []string) {
	fmt.Fprintf(b, "\tset %s {\n\t\ttype %s\n", name, kind)
	if flags != "" {
		fmt.Fprintf(b, "\t\tflags %s\n", flags)
	}
	if len(elements) > 0 {
		b.WriteString("\t\telements = { " + strings.Join(elements, ", ") + " }\n")
	}
	b.WriteString("\t}\n")
}

func texts(in []netip.Prefix) []string {
	out := make([]string, len(in))
	for i, p := range in {
		if out[i] = p.String(); p.IsSingleIP() {
			out[i] = p.Addr().String()
		}
	}
	return out
}

func (n NAT) sets(b *strings.Builder) {
	for _, f := range model.Families {
		if from := f.Of(n.Sources); len(from) > 0 {
			writeSet(b, fmt.Sprintf("nat-from%d", f), addrType(f), "interval", texts(from))
			writeSet(b, fmt.Sprintf("nat-not%d", f), addrType(f), "interval", texts(f.Of(n.Exclude)))
		}
	}
}

func (r Ruleset) postrouting(b *strings.Builder) {
	n := r.NAT
	if len(n.Sources) == 0 && !r.Floating.Enabled {
		return
	}
	fmt.Fprintf(b, "\tchain postrouting {\n\t\ttype nat hook postrouting priority %d; policy accept;\n", PriorityNAT)
	if r.Floating.Enabled {
		b.WriteString("\t\tsnat ip to ip saddr . ip daddr map @floating-self4\n" +
			"\t\tsnat ip6 to ip6 saddr . ip6 daddr map @floating-self6\n")
	}
	for _, f := range model.Families {
		if len(f.Of(n.Sources)) > 0 {
			n.rule(b, f)
		}
	}
	b.WriteString("\t}\n")
}

func (n NAT) rule(b *strings.Builder, f model.Family) {
	ip, address, verb := header(f), n.Address.IsValid() && f.Has(n.Address), "masquerade"
	if address {
		verb = "snat " + ip + " to " + n.Address.String()
	}
	match := "\t\t"
	if n.Interface != "" {
		match += fmt.Sprintf("oifname %q ", n.Interface)
	}
	match += fmt.Sprintf("%s saddr @nat-from%d %[1]s daddr != @nat-not%[2]d ", ip, f)
	if n.PortMin > 0 {
		ports := fmt.Sprintf(":%d-%d", n.PortMin, n.PortMax)
		if !address {
			ports = " to " + ports
		}
		to := verb
		if address && f == model.IPv6 {
			to = "snat ip6 to [" + n.Address.String() + "]"
		}
		for _, proto := range []string{"tcp", "udp"} {
			fmt.Fprintf(b, "%smeta l4proto %s %s%s fully-random\n", match, proto, to, ports)
		}
	}
	fmt.Fprintf(b, "%s%s fully-random\n", match, verb)
}

// Prefixes are all that the names of pod interfaces start with.
func (s SourceCheck) Prefixes() []string { return append([]string{s.Prefix}, s.OtherPrefixes...) }

// Port is a port of a transport protocol.
type Port struct {
	Protocol string // tcp or udp
	Port     int
}

// portBFD is where control packets of BFD go (RFC 5881 section 4).
const portBFD = 3784

// SpeakersPorts are the node's ports that no pod may send to but those that speak
// BGP with it.
func (s SourceCheck) SpeakersPorts() []Port {
	return []Port{{"tcp", s.BGPPort}, {"udp", portBFD}}
}

func (s SourceCheck) sets(b *strings.Builder) {
	if s.Prefix == "" {
		return
	}
	for _, f := range model.Families {
		var one, net []string
		for _, p := range s.Pods {
			for _, src := range p.Sources {
				if !f.Has(src.Addr()) {
					continue
				}
				if src.IsSingleIP() {
					one = append(one, `"`+p.Interface+`" . `+src.Addr().String())
				} else {
					net = append(net, `"`+p.Interface+`" . `+src.String())
				}
			}
		}
		kind := "ifname . " + addrType(f)
		writeSet(b, fmt.Sprintf("pod-source%d", f), kind, "", one)
		writeSet(b, fmt.Sprintf("pod-source-net%d", f), kind, "interval", net)
	}
	var speakers, local []string
	for _, p := range s.Pods {
		if p.Local.IsValid() {
			local = append(local, `"`+p.Interface+`" . `+p.Local.String())
		}
		if p.Speaks {
			speakers = append(speakers, `"`+p.Interface+`"`)
		}
	}
	writeSet(b, "pod-local6", "ifname . ipv6_addr", "", local)
	writeSet(b, "pod-speakers", "ifname", "", speakers)
}

// fromPod has one comparison for a packet that is not from a pod. It comes before
// connection tracking, for every packet: a connection that is known says nothing
// about who sends. A pod is no router to anybody: advertisements and redirects,
// which for IPv6 count from link-local addresses alone (RFC 4861 sections 6.1.2
// and 8.1), end here. Link-local sources are the pods' own choice, and the node
// notes each that asks in its table of neighbours, which is one for the whole
// machine: hence a rate, but for the one that the kernel of each pod makes, so that
// many may start at once.
func (r Ruleset) fromPod(b *strings.Builder) {
	s := r.SourceCheck
	if s.Prefix == "" {
		return
	}
	fmt.Fprintf(b, "\tchain prerouting {\n\t\ttype filter hook prerouting priority %d; policy accept;\n", PriorityPods)
	for _, p := range s.Prefixes() {
		fmt.Fprintf(b, "\t\tiifname \"%s*\" goto from-pod\n", p)
	}
	b.WriteString("\t}\n\tchain from-pod {\n")
	if s.NoVXLAN {
		for _, port := range r.Tunnels.VXLANPorts {
			fmt.Fprintf(b, "\t\tudp dport %d drop\n", port)
		}
	}
	if s.NoIPIP {
		b.WriteString("\t\tip protocol 4 drop\n")
	}
	b.WriteString("\t\ticmp type redirect counter drop\n" +
		"\t\tiifname . ip saddr @pod-source4 accept\n" +
		"\t\tiifname . ip6 saddr @pod-source6 accept\n" +
		"\t\ticmpv6 type nd-router-advert counter drop\n" +
		"\t\ticmpv6 type nd-redirect counter drop\n" +
		"\t\tip6 saddr :: accept\n" +
		"\t\tiifname . ip6 saddr @pod-local6 accept\n" +
		fmt.Sprintf("\t\tip6 saddr fe80::/10 limit rate %d/second burst %[1]d packets accept\n", LinkLocalRate) +
		"\t\tiifname . ip saddr @pod-source-net4 accept\n" +
		"\t\tiifname . ip6 saddr @pod-source-net6 accept\n" +
		"\t\tcounter drop\n\t}\n")
}

func (g ServiceGuard) sets(b *strings.Builder) {
	for _, f := range model.Families {
		if ranges := f.Of(g.Ranges); len(ranges) > 0 {
			writeSet(b, fmt.Sprintf("services%d", f), addrType(f), "interval", texts(ranges))
		}
	}
}

func (g ServiceGuard) rules(b *strings.Builder) {
	if len(g.Ranges) == 0 {
		return
	}
	// A chain of the type nat is passed by the first packet of a connection
	// alone. It cannot reject.
	head := fmt.Sprintf("chain services {\n\t\ttype nat hook postrouting priority %d; policy accept;\n", PriorityServices)
	forwarded, verb := "iif != 0 ", "drop"
	if g.Reject {
		head = fmt.Sprintf("chain forward {\n\t\ttype filter hook forward priority %d; policy accept;\n"+
			"\t\tct state established,related accept\n", PriorityFilter)
		forwarded, verb = "", "reject with icmpx admin-prohibited"
	}
	b.WriteString("\t" + head)
	for _, f := range model.Families {
		if len(f.Of(g.Ranges)) > 0 {
			fmt.Fprintf(b, "\t\t%s%s daddr @services%d %s\n", forwarded, header(f), f, verb)
		}
	}
	b.WriteString("\t}\n")
}

func (g TunnelGuard) sets(b *strings.Builder) {
	if !g.Any() {
		return
	}
	for _, f := range model.Families {
		var nodes []string
		for _, a := range g.Nodes {
			if f.Has(a) {
				nodes = append(nodes, a.String())
			}
		}
		writeSet(b, fmt.Sprintf("nodes%d", f), addrType(f), "", nodes)
	}
	for _, f := range model.Families {
		if external := f.Of(g.External); len(external) > 0 {
			writeSet(b, fmt.Sprintf("external%d", f), addrType(f), "interval", texts(external))
		}
	}
}

// input is passed by what is for the node itself: tunnelled packets among it, and
// none of what one pod sends another.
func (r Ruleset) input(b *strings.Builder) {
	pods := r.SourceCheck.Prefix != ""
	if !pods && !r.Tunnels.Any() {
		return
	}
	fmt.Fprintf(b, "\tchain input {\n\t\ttype filter hook input priority %d; policy accept;\n", PriorityFilter)
	for _, port := range r.Tunnels.VXLANPorts {
		fmt.Fprintf(b, "\t\tudp dport %d jump tunnelled\n", port)
	}
	if r.Tunnels.IPIP {
		b.WriteString("\t\tip protocol 4 jump tunnelled\n")
	}
	if pods {
		for _, p := range r.SourceCheck.Prefixes() {
			fmt.Fprintf(b, "\t\tiifname \"%s*\" goto from-pod-to-node\n", p)
		}
	}
	b.WriteString("\t}\n")
	if pods {
		r.SourceCheck.toNode(b)
	}
	if r.Tunnels.Any() {
		b.WriteString("\tchain tunnelled {\n\t\t" + r.Tunnels.foreign(model.IPv4) + "drop\n\t\t" + r.Tunnels.foreign(model.IPv6) + "drop\n\t}\n")
	}
}

// toNode leaves BGP and BFD to the pods that the node speaks BGP with. Where
// ToHost is "Drop" the others have nothing but neighbour discovery.
func (s SourceCheck) toNode(b *strings.Builder) {
	b.WriteString("\tchain from-pod-to-node {\n")
	for _, p := range s.SpeakersPorts() {
		fmt.Fprintf(b, "\t\t%s dport %d iifname != @pod-speakers counter drop\n", p.Protocol, p.Port)
	}
	if s.ToHost == model.ActionDrop {
		b.WriteString("\t\tct state established,related accept\n" +
			"\t\ticmpv6 type 133-136 accept\n")
		for _, p := range s.SpeakersPorts() {
			fmt.Fprintf(b, "\t\t%s dport %d accept\n", p.Protocol, p.Port)
		}
		b.WriteString("\t\tcounter drop\n")
	}
	b.WriteString("\t}\n")
}

// foreign match sources that are neither nodes nor allowed beside them.
func (g TunnelGuard) foreign(f model.Family) string {
	match := fmt.Sprintf("%s saddr != @nodes%d ", header(f), f)
	if len(f.Of(g.External)) > 0 {
		match += fmt.Sprintf("%s saddr != @external%d ", header(f), f)
	}
	return match
}
